"""What nobody asked for: probes, polls of heads, and saying what is wrong.

Always true: a failed probe is information, never an error; what is told is made of the facts that choose.
"""
