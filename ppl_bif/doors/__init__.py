"""Doors to other libraries' harnesses: their draws for our estimators, our scores for their tests.

Each is a module of its own, which needs that library: ``ppl_bif.doors.dattri``,
``ppl_bif.doors.devinterp``, ``ppl_bif.doors.quanda``.
"""
