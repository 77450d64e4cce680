"""Plays actions/runner's part inside the guest: takes one job from the rehearsal's GitHub, runs its steps, reports.

Standard library only, and little of it, because it starts in a guest that may be emulated.
"""
