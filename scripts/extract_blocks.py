# Writes the marked code blocks of a Markdown page to files: extract_blocks.py PAGE FOLDER
# The line before a block marks it: `<!-- write: path -->` writes a new file, and refuses one that
# exists; `<!-- same as: path -->` writes nothing, but the block must equal that file. The block's
# indentation is taken off. Prints each path.
import pathlib
import re
import sys
import textwrap

page, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
marked = re.compile(r"^ *<!-- (write|same as): (\S+) -->\n *```\w*\n(.*?)^ *```$", re.M | re.S)
for verb, name, block in marked.findall(page.read_text()):
    text = textwrap.dedent(block)
    target = folder / name
    if verb == "same as":
        if target.read_text() != text:
            sys.exit(f"{page}: the block marked 'same as: {name}' differs from that file.")
    elif target.exists():
        sys.exit(f"{page}: {name} exists already; the recipe must add a new file.")
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    print(name)
