"""The live state of endpoints, and the only place where it changes.

Always true: what keeps or changes state here has no async function, so no change spans an await.
"""
