"""The claims of OpenVINO issue 33136, each judged from evidence by a pure function.

=================  ================================================================
:mod:`.verdict`    what a claim, a verdict and its sources are
:mod:`.evidence`   everything that the verdicts are computed from, gathered once
:mod:`.pairs`      the two recorded kernels that differ in one line, list by list
:mod:`.bounds`     what of the recorded times huge pages can account for
:mod:`.coalesce`   what a collapse makes of mappings that a rule has placed
:mod:`.mapcount`   how many mappings fit under ``vm.max_map_count``, by rule
:mod:`.streams`    what equal low address bits cost caches and TLB
:mod:`.rule`       judges of what is said about the alignment rule
:mod:`.fix`        judges of what is said about its fix
:mod:`.guidance`   judges of who needs guidance
:mod:`.catalogue`  all claims, in their order
=================  ================================================================
"""
