#include "report/kept_style.h"

namespace winnow::report {

const char* kept_style() {
    return R"css(:root{color-scheme:light dark;--paper:#fff;--ink:#1a1a1a;--soft:#5f6368;
--line:#dcdcdc;--gone:#9a9a9a}
@media(prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#e8e6e3;--soft:#a2a6ab;
--line:#383c41;--gone:#6d7177}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:1.5rem clamp(.75rem,3vw,2rem) 4rem;
background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.5rem;margin:.5rem 0 0}h2{font-size:1rem;margin:1.6rem 0 .5rem}
.sub,.legend,#status,dl{color:var(--soft);font-size:.87rem;margin:.3rem 0}
.bar{position:sticky;top:0;background:var(--paper);border-bottom:1px solid var(--line);
padding:.6rem 0;z-index:1}
.controls{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;align-items:center}
.controls label{display:flex;gap:.6rem;align-items:center}
input[type=range]{width:min(18rem,40vw)}output{min-width:5.5rem}
#status{min-height:2.6em;font-variant-numeric:tabular-nums;overflow-wrap:anywhere;margin:0}
.legend i{margin-right:.3rem;padding:0 .3rem}.legend i:not(.k0){color:var(--ink)}
canvas{display:block;width:100%;border:1px solid var(--line);cursor:pointer;
image-rendering:pixelated}
#text{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75}
i{font-style:normal;border-radius:2px;padding:.1em 0;
background:rgb(var(--hue)/calc(var(--share)*.62))}
i.on{outline:1.5px solid var(--ink)}
.p0{--hue:0 114 178}.p1{--hue:0 158 115}.p2{--hue:213 94 0}.p3{--hue:230 159 0}
.p4{--hue:204 121 167}
.k0{--share:0;color:var(--gone)}.k1{--share:.12}.k2{--share:.22}.k3{--share:.32}
.k4{--share:.42}.k5{--share:.52}.k6{--share:.62}.k7{--share:.72}.k8{--share:.82}
.k9{--share:.91}.k10{--share:1}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.1rem 1rem;margin-top:2rem}
dd{margin:0;overflow-wrap:anywhere}
)css";
}

const char* kept_script() {
    return R"js(const data = JSON.parse(document.getElementById("data").textContent);
const tokens = [...document.getElementById("text").children];
const layer = document.getElementById("layer"), head = document.getElementById("head");
const status = document.getElementById("status"), map = document.getElementById("map");
const layers = data.layers, none = ".".charCodeAt(0), first = "A".charCodeAt(0);
const step = bits => bits > 12 ? 0 : bits > 6 ? 1 : bits > 3.5 ? 2 : bits > 2.25 ? 3 : 4;
let shown = [];

// Code strings of the (layer, head) pairs that are looked at.
function chosen() {
  const at = Number(layer.value) - 1, which = Number(head.value);
  return (at < 0 ? layers : [layers[at]]).flatMap(l => which < 0 ? l.heads
    : l.heads[which] === undefined ? [] : [l.heads[which]]);
}

function paint() {
  const at = Number(layer.value) - 1;
  shown = chosen();
  document.getElementById("layer-name").textContent = at < 0 ? "all layers"
    : `${at}, budget ${layers[at].budget}`;
  tokens.forEach((token, t) => {
    let kept = 0, bits = 0;
    for (const codes of shown) {
      const code = codes.charCodeAt(t);
      if (code === none) continue;
      ++kept;
      bits += data.bits[code - first];
    }
    token.className = `k${shown.length ? Math.ceil(kept / shown.length * 10 - 1e-9) : 0} ` +
      `p${kept ? step(bits / kept) : 0}`;
  });
  draw();
}

function tell(token) {
  const t = tokens.indexOf(token), counts = new Map();
  let kept = 0;
  for (const codes of shown) {
    const code = codes.charCodeAt(t);
    if (code === none) continue;
    ++kept;
    counts.set(code, (counts.get(code) || 0) + 1);
  }
  const parts = [...counts].sort().map(([code, n]) => `${n} at ${data.bits[code - first]} bits`);
  status.textContent = `Token ${t}, ${JSON.stringify(token.textContent)}: kept by ${kept} of ` +
    `${shown.length} heads` + (parts.length ? ` (${parts.join(", ")}).` : ".");
}

function draw() {
  const rows = layers.length, columns = Math.min(tokens.length, 400), scale = 8;
  map.width = columns;
  map.height = rows * scale;
  map.style.height = `${Math.min(rows * scale, 320)}px`;
  const ink = getComputedStyle(document.body).color;
  const pen = map.getContext("2d"), which = Number(head.value);
  layers.forEach((l, row) => {
    const heads = which < 0 ? l.heads : l.heads[which] === undefined ? [] : [l.heads[which]];
    for (let c = 0; c < columns; ++c) {
      const begin = Math.floor(c * tokens.length / columns);
      const end = Math.max(begin + 1, Math.floor((c + 1) * tokens.length / columns));
      let kept = 0;
      for (const codes of heads) {
        for (let t = begin; t < end; ++t) kept += codes.charCodeAt(t) !== none;
      }
      pen.globalAlpha = heads.length ? kept / (end - begin) / heads.length : 0;
      pen.fillStyle = ink;
      pen.fillRect(c, row * scale, 1, scale - 1);
    }
  });
  const at = Number(layer.value) - 1;
  if (at >= 0) {
    pen.globalAlpha = 1;
    pen.fillStyle = "#d55e00";
    pen.fillRect(0, at * scale + scale - 1, columns, 1);
  }
}

layer.addEventListener("input", paint);
head.addEventListener("input", paint);
map.addEventListener("click", event => {
  layer.value = 1 + Math.floor(event.offsetY / map.clientHeight * layers.length);
  paint();
});
let last = null;
document.getElementById("text").addEventListener("pointerover", event => {
  if (event.target.tagName !== "I") return;
  if (last) last.classList.remove("on");
  last = event.target;
  last.classList.add("on");
  tell(last);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
paint();
)js";
}

}  // namespace winnow::report
