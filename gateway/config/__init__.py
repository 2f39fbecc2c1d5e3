"""Configuration: one YAML file in, one frozen `Settings` out, or all that is wrong with it.

Always true: nothing half-read leaves this package; a problem names its file, line and column, and all
problems are told at once, so that a file is mended in one round; what is configured must start, so
nothing is ignored silently; a secret's value is in no text that this package writes.

    secret      values that print as ***
    units       250ms, 2MB, 80%, 100/s
    yaml_nodes  text to data with positions (owner of PyYAML)
    references  ${NAME} and file: inside strings
    sections    policy dataclasses and human units as pydantic types (with settings: owner of pydantic)
    scalars     names, addresses, URLs, headers as pydantic types
    mistakes    pydantic errors in the words of the configuration
    settings    the tree of models
    crosscheck  rules that span several settings
    load        all of it in order
    survey      which values are secret, what is unwise
    watch       when the file changes (owner of watchfiles)
    schema      JSON Schema for editors

Does not belong here: what a setting does, and the defaults of policies (they stand beside the policy,
see gateway.bounds).
"""
