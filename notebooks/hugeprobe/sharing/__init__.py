"""Memory that several processes of a model server share, and whether it is huge.

===================  ==============================================================
:mod:`.kinds`        the kinds of shared memory, each as an open descriptor
:mod:`.pair`         two processes that map one of them, and what smaps says
:mod:`.toucher`      what each of the two runs
:mod:`.pagecache`    files on a disk: brought into memory, and on which pages
:mod:`.handover`     tensors passed to a server and back, and the copies on the way
:mod:`.server`       what that server runs
:mod:`.weights`      several servers of one model
===================  ==============================================================
"""
