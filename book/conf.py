"""How Sphinx builds the site of a study (build.py): notebooks as they were executed; nothing is
fetched."""

project, author = "modvar", "the modvar contributors"
html_title = project
html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_fullscreen_button": False,
    "show_navbar_depth": 2,
    "navbar_persistent": [],
    "navbar_end": [],
}
html_theme_options["secondary_sidebar_items"] = {"**": []}  # its width is for figures and tables
html_copy_source = True
extensions = ["myst_nb", "sphinx-mathjax-offline"]  # the second puts MathJax beside the pages
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
html_static_path, html_css_files, html_js_files = (
    ["static"],
    ["page.css"],
    [("page.js", {"defer": "defer"})],
)
