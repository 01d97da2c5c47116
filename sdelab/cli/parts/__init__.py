"""Parts of published trainings, from which the files in `configs/` are put together.

A part is a function that returns some sections, or some keys of them, as dicts; `composed` of
`sdelab.cli.base_config` makes a config of parts.
"""
