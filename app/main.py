"""The frame of the app: page settings, navigation, the choice of results, and what to say when they cannot be read.

`streamlit run app/main.py` shows data/results.duckdb; `streamlit run app/main.py -- --db PATH` another results file.
Pages live in app/app_pages and show one thing each; the frame knows nothing of what they show.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # `streamlit run` puts this folder there, not the one that holds app and engine

import streamlit as st  # noqa: E402

from app import components, reads  # noqa: E402
from engine.errors import StoreError  # noqa: E402
from engine.store import PUBLISHED, LockedError  # noqa: E402

PAGES = (
    st.Page("app_pages/heatmap.py", title="Heatmap", icon=":material/grid_on:", default=True),
    st.Page("app_pages/representations.py", title="Representations", icon=":material/bubble_chart:"),
)


def frame() -> None:
    """The sidebar, and the page that was asked for."""
    page = st.navigation(PAGES)
    with st.sidebar:
        st.markdown("### X-DET Lab")
        labels = reads.sources()
        progress(components.choose("Results", labels, "source", format_func=labels.__getitem__))
        st.toggle("Show offensive text", key="reveal", help="For this visit. Single texts open by a click on them.")
    components.notice()
    page.run()


def progress(source: str) -> None:
    """How much of a run there is, unless all of it."""
    if source == PUBLISHED:
        if reads.runs().empty:
            components.note("No runs yet: these are the paper's figures. Make your own with python run_sweep.py.")
        return
    run = reads.runs().loc[source]
    if run["done"] < run["settings"]:
        failed = f", {run['failed']} failed" if run["failed"] else ""
        components.note(f"{run['done']} of {run['settings']} settings are finished{failed}.")


st.set_page_config(page_title="X-DET Lab", page_icon=":material/grid_on:", layout="wide")
components.style()
try:
    frame()
except LockedError as error:
    st.warning(f"{error}\n\nA sweep that is writing lets go within seconds.", icon=":material/lock:")
    st.button("Try again", type="primary")
except StoreError as error:
    st.error(str(error), icon=":material/database_off:")
