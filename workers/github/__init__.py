"""GitHub, as a GitHub App sees it.

    app            `workers.ports.GitHub`: all of the below as one
    registration   just-in-time runners
    groups         runner groups of organizations
    workflows      what jobs and runs say, and the rerun of what failed
    remarks        check runs beside commits
    lists          what there is, whether or not we were told of it
    calls          one request with its errors translated, as the App or as one installation of it
    answers        what GitHub's refusals mean
    login          the App's key and tokens
    pace           the budget of calls that all workers share
    ledgers        that budget as text

PyGithub does login, tokens and connections; its own throttling and retries are off, because a task must end in seconds
and is run again anyway. Where its methods drop what we need (a runner's id, repository-level configurations) or ask
twice, its requester is called with the path as GitHub documents it.
"""
