"""The benchmark: workloads on runtimes under arms, interleaved, with intervals and a floor.

``plan`` says what is run in which order, ``session`` runs it and can go on after an interruption,
``record`` is what is kept, ``summary`` what follows from it.
"""
