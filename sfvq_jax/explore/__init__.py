"""A page to walk a curve: rendered live by a small server, or all of it in one file.

docs/explanation/page.md tells how it is built. `subject` is what a page is of, `survey` what is
measured of it once, `pictures` makes its images; `server` serves them live, `export` writes the
file.
"""
