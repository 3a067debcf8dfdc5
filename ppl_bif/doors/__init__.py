"""Doors to other libraries' harnesses: their draws for our estimators, our scores for their tests.

Each is a module of its own: ``ppl_bif.doors.dattri`` and ``ppl_bif.doors.quanda``, which need those
libraries, and ``ppl_bif.doors.devinterp``, which reads what devinterp wrote without it.
"""
