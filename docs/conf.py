"""The documentation as a site: ``make site``. https://www.sphinx-doc.org/en/master/usage/configuration.html"""

from __future__ import annotations

project = "airflow-pgbackup"
copyright = "the airflow-pgbackup developers, Apache License 2.0"
author = "the airflow-pgbackup developers"

extensions = ["myst_parser"]
# The pages are read on the repository's host as well, which links headings by the same slugs.
# https://myst-parser.readthedocs.io/en/latest/syntax/optional.html#auto-generated-header-anchors
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nitpicky = True

html_theme = "furo"
html_title = "airflow-pgbackup"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Blocks without a language are listings and commands, not Python.
highlight_language = "text"

# The machines that build the site reach package indexes and nothing else. Links between pages are checked by -W -n.
linkcheck_ignore = [r"https?://"]
