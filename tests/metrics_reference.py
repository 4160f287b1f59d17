"""Seeded pairs of texts, scored by the official metrics: one JSON object per line.

Run by tests/metrics_reference.sh inside its virtual environment.
"""
import ast
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import sys
import types
import unicodedata
import warnings

rng = random.Random(20)
out = open(sys.argv[1], "w", encoding="utf-8")
data = sys.argv[2] if len(sys.argv) > 2 else ""

WORDS = (
    "the a an The A AN of to in water river council said report house found people year new state "
    "budget theory anthem a.m. U.S. it's don't well-known 3.5 12 7 1999 $40 50% e-mail "
    "naïve Ärger straße İstanbul ΟΔΟΣ Σίσυφος ΣΑΣ ǅungla ﬁne ÉCOLE ½ x² Ⅷ ٣٤ १२ １２ 中文 段落 "
    "日本語 한국어 привет МОСКВА “quoted” ‘a’ «the» — … a\u0301 \u200bthe the\u00adan 🙂 👩‍🔬 _ __a__ "
    "`code` #tag // a/b").split()
SPACES = [" "] * 12 + ["  ", "\n", "\t", "\u00a0", "\u3000", "\x1c", "\r\n", "\u2028", "\x0b"]
STOPS = [". "] * 6 + [".", "..", "... ", "! ", "? ", "。", "\n", ".\n\n", " . "]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。，！？—“”"


def sentence(most=14):
    return "".join(w + rng.choice(SPACES) for w in rng.choices(WORDS, k=rng.randint(1, most)))


def text(sentences=6):
    kind = rng.random()
    if kind < 0.03:
        return ""
    if kind < 0.06:
        return "".join(rng.choices(PUNCTUATION, k=rng.randint(1, 9)))
    if kind < 0.08:
        return "".join(rng.choices(SPACES + ["."], k=rng.randint(1, 6)))
    if kind < 0.16:
        return (sentence() + rng.choice(STOPS)) * rng.randint(2, 6)
    return "".join(sentence() + rng.choice(STOPS) for _ in range(rng.randint(1, sentences)))


def changed(base):
    """A reply that shares something with the answer."""
    words = base.split(" ")
    for _ in range(rng.randint(0, 1 + len(words) // 3)):
        i = rng.randrange(len(words))
        edit = rng.random()
        if edit < 0.4:
            words[i] = rng.choice(WORDS)
        elif edit < 0.6:
            words.insert(i, rng.choice(WORDS))
        elif edit < 0.8 and len(words) > 1:
            del words[i]
        else:
            rng.shuffle(words)
    return " ".join(words)


def pair(sentences=6):
    answer = text(sentences)
    return (changed(answer) if rng.random() < 0.7 else text(sentences)), answer


def put(metric, reply, answer, score, **more):
    row = {"metric": metric, "reply": reply, "answer": answer, "score": score, **more}
    out.write(json.dumps(row, ensure_ascii=False) + "\n")


def load(path, **stubs):
    """One module of lm-eval by its file; what it imports and we do not need is stubbed."""
    for name, values in stubs.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(values)
    found = importlib.metadata.distribution("lm-eval").locate_file(path)
    spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], found)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


with warnings.catch_warnings():
    warnings.simplefilter("error")  # fuzzywuzzy only warns where python-Levenshtein is missing
    from fuzzywuzzy import fuzz
official = load("lm_eval/tasks/longbench/metrics.py", jieba={})
ruler = load("lm_eval/tasks/ruler/common_utils.py", transformers={"AutoTokenizer": None})


def short_answers():
    for _ in range(600):
        reply, answer = pair(2)
        put("qa_f1", reply, answer, official.qa_f1_score(reply, answer))
    for name, score, mark in [("retrieval", official.retrieval_score, "Paragraph "),
                              ("retrieval_zh", official.retrieval_zh_score, "段落")]:
        for _ in range(300):
            number = rng.choice(["1", "3", "12", "٣", "１２", "007"])
            answer = rng.choice(["", mark, mark + "x "]) + mark + number + rng.choice(["", ".", " 9"])
            reply = text(2) + " ".join(rng.choices(["1", "3", mark + "12", "٣", "x3y", "１２", "007"], k=3))
            put(name, reply, answer, score(reply, answer))
    for _ in range(300):
        answer = rng.choice(["1", "12", "٣", "0", "twelve", ""])
        reply = rng.choice(["", text(1)]) + " ".join(rng.choices(["1", "12", "٣", "0", "a1b12", "-1", "1.2"], k=rng.randint(0, 4)))
        put("count", reply, answer, official.count_score(reply, answer))


def classes():
    names = ["city", "Other city", "Other", "Human", "Human group", "group", "Entity", "animal",
             "Food", "Food and drink", "drink", "and", "中", "中文", "e", "Definition of something",
             "something", "Number of something", "Number", "of"]
    for _ in range(700):
        chosen = rng.sample(names, rng.randint(1, 12))
        if rng.random() < 0.15:
            chosen.append(rng.choice(chosen))
        answer = rng.choice(chosen if rng.random() < 0.8 else names)
        reply = " ".join(rng.choices(names, k=rng.randint(0, 5)))
        if rng.random() < 0.6:
            reply += " " + answer
        score = official.classification_score(reply, answer, all_classes=chosen)
        put("classification", reply, answer, score, classes=chosen)


def summaries():
    for _ in range(600):
        reply, answer = pair()
        put("rouge_l", reply, answer, official.rouge_score(reply, answer))
    path = os.path.join(data, "longbench", "multi_news.jsonl") if data else ""
    if os.path.isfile(path):
        rows = [json.loads(line)["answers"][0] for line in open(path, encoding="utf-8")][:60]
        for a, b in zip(rows, rows[1:]):
            put("rouge_l", a, b, official.rouge_score(a, b))


def code():
    for _ in range(400):
        a = "".join(rng.choices("ab(). =中é\U0001f642", k=rng.randint(0, 60)))
        b = a if rng.random() < 0.05 else "".join(c for c in a if rng.random() < 0.8) + rng.choice(["", "x", a])
        put("fuzz_ratio", a, b, fuzz.ratio(a, b))
    for total in (8, 16, 40, 200, 400):  # halves of a percent
        for distance in range(0, total + 1, max(1, total // 100)):
            half = (total + distance) // 2
            a, b = "a" * half, "a" * (total - half)
            put("fuzz_ratio", a, b, fuzz.ratio(a, b))
    for _ in range(400):
        answer = rng.choice(["return self.x", "for i in range(3):", "if (a == b) {", "", "x = 'é'"])
        lines = rng.choices([answer, answer + ";", "# note", "// note", "```python", "", "  \t", "    " + answer, "pass", "\u3000"], k=rng.randint(0, 5))
        reply = "\n".join(lines)
        put("code_similarity", reply, answer, official.code_sim_score(reply, answer))


def matches():
    for _ in range(500):
        refs = [rng.choice(WORDS + ["ΟΔΟΣ end", "two words", " lead", "tab\there", "line\nbreak"]) for _ in range(rng.randint(1, 4))]
        found = [r for r in refs if rng.random() < 0.5]
        reply = rng.choice(["", " ", "\n\x01"]) + text(2) + rng.choice(["", "\x00", "\t"]).join(f.upper() if rng.random() < 0.5 else f for f in found) + rng.choice(["", "\n", "\x1f "])
        clean = ruler.postprocess_pred([reply])
        put("string_match_all", reply, "", ruler.string_match_all(clean, [refs]), references=refs)
        # lm-eval divides its partial match by the references; NVIDIA's own takes the maximum.
        any_of = max(1.0 if r.lower() in clean[0].lower() else 0.0 for r in refs)
        if len(refs) == 1:
            assert any_of == ruler.string_match_part(clean, [refs])
        put("string_match_any", reply, "", any_of, references=refs)


def needles():
    expected = "eat a sandwich and sit in Dolores Park on a sunny day.".lower()
    for _ in range(300):
        reply = changed(expected) if rng.random() < 0.6 else text(2)
        reply = reply.title() if rng.random() < 0.3 else reply
        wanted = expected if rng.random() < 0.7 else (text(1).strip() or "x")
        words = set(wanted.lower().split())
        put("word_overlap", reply, wanted, len(set(reply.lower().split()) & words) / len(words))


def characters():
    """Lower case and classes of every character that this Python knows, in rows of 64."""
    known = [chr(c) for c in range(0x110000)
             if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Cn", "Co")]
    for i in range(0, len(known), 64):
        row = known[i:i + 64]
        out.write(json.dumps({
            "metric": "characters", "reply": "".join(row),
            "lower": [c.lower() for c in row],
            "space": [c.isspace() for c in row],
            "decimal": [c.isdecimal() for c in row],
            "word": [c.isalnum() or c == "_" for c in row]}, ensure_ascii=False) + "\n")


def prompts():
    """LongBench's prompts as its own code makes them: str.format of the row."""
    path = os.path.join(data, "longbench", "config", "dataset2prompt.json") if data else ""
    if not os.path.isfile(path):
        return
    for task, template in json.load(open(path, encoding="utf-8")).items():
        for _ in range(3):
            row = {"input": text(1) + rng.choice(["", "{context}", "{", "}}"]), "context": text(3)}
            put("prompt", "", template.format(**row), 0, task=task, row=row)
    for template in ["{{{input}}}", "a{{b}}{context}{{", "{input}{input}", "}}{{", "no place"]:
        row = {"input": "in{}", "context": "con{input}"}
        put("prompt", "", template.format(**row), 0, template=template, row=row)


def task_file(name):
    path = importlib.metadata.distribution("lm-eval").locate_file("lm_eval/tasks/" + name)
    return open(path, encoding="utf-8").read()


def longbench_prompts():
    """LongBench's tasks as lm-eval has them: its doc_to_text, rendered, and its longest reply."""
    for task in """narrativeqa qasper multifieldqa_en hotpotqa 2wikimqa musique gov_report qmsum
            multi_news trec triviaqa samsum lsht passage_count passage_retrieval_en
            passage_retrieval_zh lcc repobench-p""".split():
        described = task_file("longbench/" + task + ".yaml")
        quoted = re.search(r"^doc_to_text: (.+)$", described, re.M)[1]
        template = json.loads(quoted) if quoted[0] == '"' else quoted[1:-1].replace("''", "'")
        longest = int(re.search(r"max_gen_toks: (\d+)", described)[1])
        for _ in range(3):
            row = {"input": text(1) + rng.choice(["", "{context}", "{"]), "context": text(3)}
            seen = {**row, "question": row["input"]}
            answer = re.sub(r"{{(\w+)}}", lambda place: seen[place[1]], template)
            put("longbench_prompt", "", answer, 0, task=task, row=row, longest=longest,
                template=template.replace("{{context}}", "{context}").replace("{{question}}", "{input}")
                .replace("{{input}}", "{input}"))


def constants(name):
    """The module's plain constants, without importing what it needs."""
    found = {}
    for node in ast.parse(task_file(name)).body:
        if isinstance(node, ast.Assign):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                pass
    return found


def ruler_prompts():
    """RULER's tasks as lm-eval words them: the document's input, and how its answer begins."""
    listed = [("vt", constants("ruler/vt_utils.py")["CONFIG"]["variable_tracking"])]
    listed += [(task, constants("ruler/" + task + "_utils.py")["CONFIG"]) for task in ("cwe", "fwe")]
    listed += [("qa_1", constants("ruler/qa_utils.py")["CONFIG"])]
    niah = constants("ruler/niah_utils.py")["TEMPLATE"]
    for i in range(40):
        values = {"context": text(4), "query": rng.choice(["harbor", "12345", "Who"]), "num_v": 5,
                  "type_needle_v": "numbers"}
        whole = [(task, config["template"].format(**values), config["answer_prefix"].format(**values))
                 for task, config in listed]
        whole.append(("niah_multiquery", niah.format(**values), "The special magic numbers for " +
                      values["query"] + " mentioned in the provided text are"))
        for task, question, opening in whole:
            put("ruler_prompt", "", question.strip() + " " + opening.strip(), 0, task=task, index=i,
                input=question.strip(), gen_prefix=opening.strip())


for part in (short_answers, classes, summaries, code, matches, needles, characters, prompts,
             longbench_prompts, ruler_prompts):
    part()
out.close()
