// How the page looks. System fonts, one accent, both colour schemes, no fixed widths.
#include "report/page.h"

namespace winnow::report {

const char* page_style() {
    return R"css(:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--soft:#5f6368;
--line:#dcdcdc;--wash:#f5f5f3;--link:#0b5c95}
@media(prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e8e6e3;--soft:#a2a6ab;
--line:#383c41;--wash:#1f2226;--link:#7cb8e8}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:1.5rem clamp(.75rem,3vw,2rem) 4rem;
background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;margin:.5rem 0 1rem}
h2{font-size:1.3rem;margin:3rem 0 .2rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:2rem 0 .6rem}
h2 span,h3 span,nav span{font-weight:400;color:var(--soft)}
header+main section:first-child h2{margin-top:0}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
nav{display:flex;flex-direction:column;gap:.2rem}
.facts,.caption,.files{color:var(--soft);font-size:.87rem;margin:.4rem 0}
.caption{max-width:46rem}
.files{display:inline-block;margin-right:1.2rem}
.scroll{overflow:auto;max-height:44rem}
table{border-collapse:collapse}
.data{font-size:.87rem;line-height:1.35;font-variant-numeric:tabular-nums}
.data th,.data td{padding:.22rem .7rem;text-align:right;white-space:nowrap}
.data th:first-child,.data td:first-child{padding-left:.2rem}
.data .t,.data .block th{text-align:left}
.data thead th{white-space:normal;vertical-align:bottom;position:sticky;top:0;z-index:1;background:var(--paper);color:var(--soft);
font-weight:500;box-shadow:inset 0 -1px 0 var(--soft)}
.data .block th{padding-top:.8rem;font-weight:600;box-shadow:inset 0 -1px 0 var(--line)}
.data tbody td:first-child{position:sticky;left:0;background:var(--paper)}
.data tbody tr:hover td{background:var(--wash)}
.data .full td{font-weight:600}
.data .random td{color:var(--soft)}
.data .reply{white-space:pre-wrap;text-align:left;min-width:16rem;max-width:28rem;
overflow-wrap:anywhere}
.data tbody td{vertical-align:top}
.sort th{cursor:pointer}.sort th[aria-sort]{color:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1rem}
.chart{margin:0;max-width:36rem}.chart svg{display:block;width:100%;height:auto}
.chart figcaption{font-size:.78rem;opacity:.8}
summary{cursor:pointer;font-weight:600;margin:.8rem 0 .5rem}
.maps{display:grid;grid-template-columns:repeat(var(--n),minmax(0,17rem));gap:1rem 1.4rem;
align-items:end}
.maps figure{margin:0;min-width:0}
.maps figcaption{font-size:.8rem;display:flex;justify-content:space-between;gap:.5rem;
padding-left:2rem}
.maps table{width:100%;table-layout:fixed;font-size:.66rem;line-height:1.5;
font-variant-numeric:tabular-nums;border-collapse:separate;border-spacing:1px}
.maps td{padding:0;text-align:center;color:#1a1a1a;height:1rem;overflow:hidden}
.maps th{font-weight:400;color:var(--soft);padding:0;text-align:center;overflow:visible}
.maps tr>th:first-child{width:2rem;text-align:right;padding-right:.35rem}
.scale{display:inline-flex;vertical-align:middle;margin-left:.6rem}
.scale i{font-style:normal;font-size:.7rem;color:#1a1a1a;padding:0 .5rem}
.scale i:nth-child(1){background:#f0496e}.scale i:nth-child(2){background:#ee8154}
.scale i:nth-child(3){background:#ebb839}.scale i:nth-child(4){background:#7cc86c}
.scale i:nth-child(5){background:#0cd79f}
footer dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem 1rem;
font-size:.87rem;margin:.4rem 0}
footer dt{color:var(--soft)}footer dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--wash);padding:.7rem .9rem;overflow:auto;font-size:.82rem;white-space:pre-wrap;
overflow-wrap:anywhere}
.notes{padding-left:1.1rem;font-size:.9rem}
@media(max-width:640px){.maps{grid-template-columns:repeat(min(var(--n),2),minmax(0,1fr));
gap:.8rem}.maps table{font-size:.55rem}.maps figcaption{padding-left:1.5rem;font-size:.72rem}
.maps tr>th:first-child{width:1.5rem}.data th,.data td{padding:.22rem .45rem}}
@media print{.scroll{max-height:none}details{display:block}}
)css";
}

const char* page_script() {
    return R"js(for (const th of document.querySelectorAll("table.sort th")) {
  th.addEventListener("click", () => {
    const table = th.closest("table"), body = table.tBodies[0], at = th.cellIndex;
    const down = th.getAttribute("aria-sort") === "ascending";
    for (const other of th.parentNode.cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const units = {B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40};
    const value = row => {
      const words = row.cells[at].textContent.split(" "), number = parseFloat(words[0]);
      return number * (units[words[1]] || 1);
    };
    const text = th.classList.contains("t");
    const order = (a, b) => text ? a.cells[at].textContent.localeCompare(b.cells[at].textContent)
      : (isNaN(value(a)) - isNaN(value(b))) || value(a) - value(b);
    const rows = [...body.rows].sort((a, b) => down ? order(b, a) : order(a, b));
    body.append(...rows);
  });
}
)js";
}

}  // namespace winnow::report
