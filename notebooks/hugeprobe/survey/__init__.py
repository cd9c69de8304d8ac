"""What the nodes of a cluster have in common, and which of them differ.

``cluster`` asks the nodes, ``question`` is what travels to them, ``node`` is what answers there,
``outcome`` is what came of it; ``facts`` says what is compared, ``differences`` compares, and
``table`` writes the answers down.
"""
