"""Settings of the site: `pip install '.[docs]' && sphinx-build -W docs site`."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import generate  # noqa: E402
from sphinx.domains.python import PyObject  # noqa: E402

import sfvq_jax  # noqa: E402

project = "sfvq-jax"
author = "the maintainers of sfvq-jax"
copyright = author
version = release = sfvq_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "sfvq-jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": False,
    "navbar_persistent": [],  # the sidebar has the search
    "use_download_button": False,
    "show_toc_level": 2,
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "Apache-2.0",
}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_number_source_lines = False
nb_merge_streams = True
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autosummary_generate = False
default_role = "py:obj"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

generate.write_pages()


def setup(app):
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-skip-member", generate.skip_member)
    app.connect("autodoc-process-docstring", generate.prepare_docstring)
    app.connect("doctree-read", generate.know_anchors)
