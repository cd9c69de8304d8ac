"""What to do about the huge pages of a service, and what each action was measured to bring.

============================  =============================================================
:mod:`.chart`                 the questions in their order, and where each answer leads
:mod:`.answers`               the same questions, answered for a server on this host
:mod:`.actions`               what can be done: symptom, check, action, cost, and its limits
:mod:`.trials`                what is measured here for that
:mod:`.served`                the process that is started for that
:mod:`.promises`              what the operator's recipe promises, in counts
============================  =============================================================
"""
