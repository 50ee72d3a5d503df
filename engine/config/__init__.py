"""A run is one YAML file: read, composed, checked and remembered key by key.

`loader` reads files into one mapping, `schema` says what may stand in it, `errors` turns faults into lines a user can act on,
`render` writes the result out again, and `validate` looks at everything the settings point at.
"""
