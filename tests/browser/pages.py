"""The pages of the app, by their path, as app/main.py registers them; with them the views that show most."""

import ast
from pathlib import Path

from tests.browser.serving import ROOT


def paths() -> list[str]:
    """The path of every page in `PAGES`, the default one as ''. Read from the source: to import it is to run it."""
    tree = ast.parse((ROOT / "app" / "main.py").read_text(encoding="utf-8"))
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "st.Page"):
        options = {option.arg: ast.literal_eval(option.value) for option in call.keywords}
        name = options.get("url_path") or Path(ast.literal_eval(call.args[0])).stem
        found.append("" if options.get("default") else name)
    return found
