"""The app shell: page settings, navigation, the choice of results, and what is shown when they cannot be read.

`streamlit run app/main.py` shows data/results.duckdb and the folder adapters; after a `--`, `--db FILE` and
`--adapters FOLDER` name others. Where .streamlit/secrets.toml has an [auth] section, visitors sign in first.
Pages live in app/app_pages and show one thing each; the frame knows nothing of what they show.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)  # `streamlit run` puts this folder there, not the one that holds app and engine

import streamlit as st  # noqa: E402

from app import queries, widgets  # noqa: E402
from engine.errors import StoreError  # noqa: E402
from engine.store import PUBLISHED, LockedError  # noqa: E402

PAGES = (
    st.Page("app_pages/overview.py", title="Overview", icon=":material/dashboard:", default=True),
    st.Page("app_pages/heatmap.py", title="Heatmap", icon=":material/grid_on:"),
    st.Page("app_pages/models.py", title="Models", icon=":material/table_chart:"),
    st.Page("app_pages/strategies.py", title="Strategies", icon=":material/compare_arrows:"),
    st.Page("app_pages/completions.py", title="Completions", icon=":material/forum:"),
    st.Page("app_pages/live.py", title="Live", icon=":material/edit_note:"),
    st.Page("app_pages/representations.py", title="Representations", icon=":material/bubble_chart:"),
    st.Page("app_pages/sweep.py", title="Sweep", icon=":material/model_training:"),
    st.Page("app_pages/paper.py", title="Paper", icon=":material/article:"),
)


def frame() -> None:
    """The sidebar, and the page that was asked for."""
    page = st.navigation(PAGES)
    widgets.arrive(page.url_path)
    with st.sidebar:
        st.markdown("### X-DET Lab")
        labels = queries.sources()
        progress(widgets.choose("Results", labels, "source", format_func=labels.__getitem__))
        st.toggle("Show offensive text", key="reveal", help="For this session. Click a text to show it alone.")
        signed_in()
    widgets.notice()
    st.title(page.title)
    page.run()


def is_welcome() -> bool:
    """Whether the visitor has signed in, or need not: st.user knows of signing in when secrets.toml has [auth]."""
    return bool(st.user.get("is_logged_in", True))


def ask_to_sign_in() -> None:
    """All that is shown to who has not."""
    st.navigation(PAGES, position="hidden")  # the address stays that of the page
    st.title("X-DET Lab")
    widgets.note("Sign in to see the results.")
    st.button("Sign in", type="primary", on_click=st.login)


def signed_in() -> None:
    """Who is signed in, and the way out; nothing where nobody needs to be."""
    if "is_logged_in" in st.user:
        who = next((str(st.user[claim]) for claim in ("email", "name", "sub") if st.user.get(claim)), "unknown user")
        widgets.note(f"Signed in as {who}")
        st.button("Sign out", on_click=st.logout)


def progress(source: str) -> None:
    """How much of a run there is, unless all of it."""
    if source == PUBLISHED:
        if queries.runs().empty:
            widgets.note("No runs yet; showing the paper's figures. Start a run with python run_sweep.py.")
        return
    run = queries.runs().loc[source]
    if run["done"] < run["settings"]:
        failed = f", {run['failed']} failed" if run["failed"] else ""
        widgets.note(f"{run['done']} of {run['settings']} settings finished{failed}.")


st.set_page_config(page_title="X-DET Lab", page_icon=":material/grid_on:", layout="wide")
widgets.style()
try:
    if is_welcome():
        frame()
    else:
        ask_to_sign_in()
except LockedError as error:
    st.warning(f"{error}\n\nIf a sweep is writing, the file is free again within seconds.", icon=":material/lock:")
    st.button("Try again", type="primary")
except StoreError as error:
    st.error(str(error), icon=":material/database_off:")
