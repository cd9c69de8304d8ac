"""What the nodes of a cluster have in common, and which of them differ.

:mod:`~hugeprobe.survey.cluster` asks, :mod:`~hugeprobe.survey.node` answers on each node,
:mod:`~hugeprobe.survey.facts` says what is compared, :mod:`~hugeprobe.survey.differences` compares,
and :mod:`~hugeprobe.survey.table` writes the answers down.
"""
