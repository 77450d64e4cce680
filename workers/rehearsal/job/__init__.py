"""The job of the rehearsal: these files become the repository that it clones, so they are on their own in the guest."""
