"""Cut what we use out of the descriptions that GitHub publishes: `python -m workers.rehearsal.github.cut NODE_MODULES`.

NODE_MODULES is a folder that holds the npm packages @octokit/openapi (the REST description), @octokit/openapi-webhooks
(the schemas of deliveries) and @octokit/webhooks-examples (recorded deliveries). What comes out is kept in the tree, in
`published/`, so that neither tests nor the demo need them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

PUBLISHED: Final = Path(__file__).parent / "published"
REPOSITORY: Final = "/repos/{owner}/{repo}"
OPERATIONS: Final = {
    "/app": ("get",),
    "/app-manifests/{code}/conversions": ("post",),
    "/app/hook/config": ("get",),
    "/app/hook/deliveries": ("get",),
    "/app/hook/deliveries/{delivery_id}": ("get",),
    "/app/hook/deliveries/{delivery_id}/attempts": ("post",),
    "/app/installations": ("get",),
    "/app/installations/{installation_id}": ("get",),
    "/app/installations/{installation_id}/access_tokens": ("post",),
    "/apps/{app_slug}": ("get",),
    "/installation/repositories": ("get",),
    "/orgs/{org}/installation": ("get",),
    "/orgs/{org}/actions/runner-groups": ("get",),
    "/orgs/{org}/actions/runners": ("get",),
    "/orgs/{org}/actions/runners/generate-jitconfig": ("post",),
    "/orgs/{org}/actions/runners/{runner_id}": ("get", "delete"),
    f"{REPOSITORY}/installation": ("get",),
    f"{REPOSITORY}/actions/runners": ("get",),
    f"{REPOSITORY}/actions/runners/generate-jitconfig": ("post",),
    f"{REPOSITORY}/actions/runners/{{runner_id}}": ("get", "delete"),
    f"{REPOSITORY}/actions/jobs/{{job_id}}": ("get",),
    f"{REPOSITORY}/actions/jobs/{{job_id}}/rerun": ("post",),
    f"{REPOSITORY}/actions/runs": ("get",),
    f"{REPOSITORY}/actions/runs/{{run_id}}": ("get",),
    f"{REPOSITORY}/actions/runs/{{run_id}}/jobs": ("get",),
    f"{REPOSITORY}/actions/runs/{{run_id}}/rerun-failed-jobs": ("post",),
    f"{REPOSITORY}/check-runs": ("post",),
    f"{REPOSITORY}/check-runs/{{check_run_id}}": ("get", "patch"),
    f"{REPOSITORY}/commits/{{ref}}/check-runs": ("get",),
}
WEBHOOKS: Final = (
    "ping",
    "installation-created",
    "installation-deleted",
    "installation-new-permissions-accepted",
    "installation-suspend",
    "installation-unsuspend",
    "installation-repositories-added",
    "installation-repositories-removed",
    "workflow-job-queued",
    "workflow-job-waiting",
    "workflow-job-in-progress",
    "workflow-job-completed",
)
DELIVERIES: Final = ("ping", "installation", "installation_repositories", "workflow_job")
# Prose and samples are most of the size and check nothing.
PROSE: Final = frozenset({"examples", "externalDocs", "x-github", "x-octokit", "tags", "summary"})
SAMPLE: Final = frozenset({"description", "example"})
# Samples hold some, and whoever looks for leaked secrets finds them.
SECRET: Final = frozenset({"pem", "client_secret", "webhook_secret"})
INSTALLATIONS: Final = "/app/installations"

Json = Any  # the tree of a JSON document has no better type


def references(part: Json) -> Iterator[str]:
    """Yield every `$ref` below this part."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def slim(part: Json, *, names: bool = False) -> Json:
    """Drop prose and samples; `names` says that the keys here are names of properties, which are all kept."""
    if isinstance(part, list):
        return [slim(value) for value in part]
    if not isinstance(part, dict):
        return part
    dropped = frozenset() if names else PROSE | (SAMPLE - required_prose(part))
    part = part if names else with_null(part)
    return {
        key: slim(value, names=key == "properties" and not names) for key, value in part.items() if key not in dropped
    }


def with_null(part: dict[str, Json]) -> dict[str, Json]:
    """Let a nullable enumeration be null.

    OpenAPI 3.0.3 says that null must then be listed too. GitHub's description does not list it, and GitHub answers it:
    a queued job's `conclusion` is null.
    """
    if part.get("nullable") is True and None not in part.get("enum", [None]):
        return part | {"enum": [*part["enum"], None]}
    return part


def required_prose(part: Mapping[str, Json]) -> frozenset[str]:
    """A response must have a description, by OpenAPI's own rules."""
    is_schema = any(key in part for key in ("type", "in", "operationId", "oneOf", "anyOf", "allOf", "enum", "$ref"))
    return frozenset() if is_schema else frozenset({"description"})


def with_components(document: dict[str, Json], components: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """Add everything that the document refers to, directly or not, in a stable order."""
    found: dict[str, dict[str, Json]] = {}
    todo = list(references(document))
    while todo:
        _, _, kind, name = todo.pop().split("/", 3)
        if name not in found.setdefault(kind, {}):
            found[kind][name] = slim(components[kind][name])
            todo += references(found[kind][name])
    ordered = {kind: dict(sorted(parts.items())) for kind, parts in sorted(found.items())}
    return document | {"components": ordered}


def cut_description(full: Mapping[str, Json]) -> dict[str, Json]:
    """Return the description of the operations that we use."""
    paths = {path: {verb: slim(full["paths"][path][verb]) for verb in verbs} for path, verbs in OPERATIONS.items()}
    success = paths[INSTALLATIONS]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    # There, and only there, an account must be a user and an enterprise at once; elsewhere GitHub describes it right.
    success["items"] = {"$ref": "#/components/schemas/installation"}
    origin = {key: full["info"][key] for key in ("version", "title", "license")}
    head = {"openapi": full["openapi"], "info": origin, "servers": [{"url": "/"}], "paths": paths}
    return with_components(head, full["components"])


def cut_responses(full: Mapping[str, Json]) -> dict[str, Json]:
    """Return the published sample of each operation's success, keyed `verb path`."""
    samples = {}
    for path, verbs in OPERATIONS.items():
        for verb in verbs:
            if found := sample_of(full, full["paths"][path][verb]["responses"]):
                samples[f"{verb} {path}"] = found
    return samples


def sample_of(full: Mapping[str, Json], responses: Mapping[str, Json]) -> Json:
    """Return the sample of the first 2XX response, None if it has none."""
    success = resolved(full, next(body for status, body in responses.items() if status.startswith("2")))
    examples = success.get("content", {}).get("application/json", {}).get("examples", {})
    found = next((resolved(full, example)["value"] for example in examples.values()), None)
    if not isinstance(found, dict):
        return found
    return {name: value for name, value in found.items() if name not in SECRET}


def resolved(full: Mapping[str, Json], part: Mapping[str, Json]) -> Mapping[str, Json]:
    """Follow one `$ref`."""
    if "$ref" not in part:
        return part
    _, _, kind, name = part["$ref"].split("/", 3)
    target: Mapping[str, Json] = full["components"][kind][name]
    return target


def cut_webhooks(full: Mapping[str, Json]) -> dict[str, Json]:
    """Return the schemas of the deliveries that we send or receive, with what they refer to."""
    return with_components({"webhooks": {name: slim(full["webhooks"][name]) for name in WEBHOOKS}}, full["components"])


def cut_deliveries(full: list[Mapping[str, Json]]) -> dict[str, Json]:
    """Return the recorded deliveries of the events that we use."""
    return {event["name"]: event["examples"] for event in full if event["name"] in DELIVERIES}


def main() -> None:
    """Write `published/` anew."""
    packages = Path(sys.argv[1]) / "@octokit"
    description = json.loads((packages / "openapi/generated/api.github.com.json").read_text())
    webhooks = json.loads((packages / "openapi-webhooks/generated/api.github.com.json").read_text())
    deliveries = json.loads((packages / "webhooks-examples/api.github.com/index.json").read_text())
    for name, document in (
        ("description", cut_description(description)),
        ("responses", cut_responses(description)),
        ("webhooks", cut_webhooks(webhooks)),
        ("deliveries", cut_deliveries(deliveries)),
    ):
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (PUBLISHED / f"{name}.json").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}.json {len(text) // 1024} KiB\n")


if __name__ == "__main__":
    main()
