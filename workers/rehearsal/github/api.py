"""The part of GitHub's public REST API that we use, by its documented paths."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, jsonify, request

from workers.rehearsal.github.apps import Apps
from workers.rehearsal.github.broker import encoded_jit_config
from workers.rehearsal.github.deliveries import Sender
from workers.rehearsal.github.groups import RunnerGroups
from workers.rehearsal.github.login import Login
from workers.rehearsal.github.paging import page_of, page_size
from workers.rehearsal.github.records import ApiError, Delivery, Installation, Job, Run
from workers.rehearsal.github.views import Views, status_of
from workers.rehearsal.github.world import World

REPOSITORY: Final = "/repos/<owner>/<repo>"

Answer = Response | tuple[Response, int]


def nothing() -> Response:
    """Answer 204."""
    return Response(status=HTTPStatus.NO_CONTENT)


class AppApi:
    """What the App may ask as itself."""

    def __init__(self, world: World, login: Login, views: Views, sender: Sender) -> None:
        self._world = world
        self._login = login
        self._views = views
        self._sender = sender

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("app_api", __name__)
        routes.before_request(self._login.require_app)
        routes.get("/app")(self.app)
        routes.get("/app/hook/config")(self.hook)
        routes.get("/app/installations")(self.installations)
        routes.get("/app/installations/<int:installation_id>")(self.installation)
        routes.post("/app/installations/<int:installation_id>/access_tokens")(self.access_token)
        routes.get(f"{REPOSITORY}/installation")(self.repository_installation)
        routes.get("/orgs/<org>/installation")(self.organization_installation)
        routes.get("/app/hook/deliveries")(self.deliveries)
        routes.get("/app/hook/deliveries/<int:delivery_id>")(self.delivery)
        routes.post("/app/hook/deliveries/<int:delivery_id>/attempts")(self.redeliver)
        return routes

    def app(self) -> Answer:
        return jsonify(self._views.app(self._login.app()))

    def hook(self) -> Answer:
        return jsonify(self._views.hook(self._login.app()))

    def installations(self) -> Answer:
        rows = [one for one in list(self._world.installations.values()) if one.app is self._login.app()]
        return jsonify([self._views.installation(one) for one in page_of(rows)])

    def installation(self, installation_id: int) -> Answer:
        return jsonify(self._views.installation(self._mine(installation_id)))

    def _mine(self, installation_id: int) -> Installation:
        """Return an installation of the App that asks; it is not told of others."""
        found = self._world.installations.get(installation_id)
        if found is None or found.app is not self._login.app():
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found

    def access_token(self, installation_id: int) -> Answer:
        self._mine(installation_id)
        token = self._world.issue_token(installation_id)
        return jsonify(self._views.token(token)), HTTPStatus.CREATED

    def repository_installation(self, owner: str, repo: str) -> Answer:  # noqa: ARG002  # the route names both
        return self.organization_installation(owner)

    def organization_installation(self, org: str) -> Answer:
        found = self._world.installation_of(org, self._login.app())
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return jsonify(self._views.installation(found))

    def deliveries(self) -> Answer:
        """List the newest first; the cursor is the last id of the page before."""
        before = int(request.args.get("cursor", 1 << 62))
        mine = [row for row in list(self._sender.tries.values()) if row.app is self._login.app()]
        rows = [row for row in reversed(mine) if row.delivered_at and row.id < before]
        page = rows[: page_size()]
        answer = jsonify([self._views.delivery(row) for row in page])
        if len(page) < len(rows):
            link = f"{self._views.url}/app/hook/deliveries?per_page={page_size()}&cursor={page[-1].id}"
            answer.headers["Link"] = f'<{link}>; rel="next"'
        return answer

    def delivery(self, delivery_id: int) -> Answer:
        return jsonify(self._views.whole_delivery(self._tried(delivery_id)))

    def redeliver(self, delivery_id: int) -> Answer:
        self._sender.redeliver(self._tried(delivery_id))
        return jsonify({}), HTTPStatus.ACCEPTED

    def _tried(self, delivery_id: int) -> Delivery:
        found = self._sender.tries.get(delivery_id)
        if found is None or found.delivered_at is None or found.app is not self._login.app():
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found


class ManifestApi:
    """What is asked without a login: an App's secrets by whoever has its code, and whether there is such an App."""

    def __init__(self, apps: Apps, views: Views) -> None:
        self._apps = apps
        self._views = views

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("manifest_api", __name__)
        routes.post("/app-manifests/<code>/conversions")(self.convert)
        routes.get("/apps/<slug>")(self.app)
        return routes

    def app(self, slug: str) -> Answer:
        """Show an App that anybody may install; of others nobody is told without a login."""
        app = self._apps.by_slug(slug)
        if not app.is_public:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return jsonify(self._views.app(app))

    def convert(self, code: str) -> Answer:
        made = self._apps.take(code)
        return jsonify(self._views.made_app(made.app, made.pem)), HTTPStatus.CREATED


class RunnersApi:
    """Registrations, of a repository and of an organization alike."""

    def __init__(self, world: World, login: Login, views: Views, groups: RunnerGroups) -> None:
        self._world = world
        self._login = login
        self._views = views
        self._groups = groups

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("runners_api", __name__)
        for place in (REPOSITORY, "/orgs/<owner>"):
            runners = f"{place}/actions/runners"
            routes.get(runners)(self.runners)
            routes.post(f"{runners}/generate-jitconfig")(self.generate)
            routes.get(f"{runners}/<int:runner_id>")(self.runner)
            routes.delete(f"{runners}/<int:runner_id>")(self.remove)
        return routes

    def _scope(self, owner: str, repo: str | None) -> str:
        if repo is None:
            self._groups.require_permission(owner)
            return owner
        self._login.require_installation(owner)
        return f"{owner}/{repo}"

    def runners(self, owner: str, repo: str | None = None) -> Answer:
        rows = self._world.runners_in(self._scope(owner, repo))
        if name := request.args.get("name"):
            rows = [row for row in rows if row.name == name]
        return jsonify({"total_count": len(rows), "runners": [self._views.runner(row) for row in page_of(rows)]})

    def generate(self, owner: str, repo: str | None = None) -> Answer:
        scope, wish = self._scope(owner, repo), request.get_json()
        # A repository has no other group than the default one.
        group = self._groups.group(owner if repo is None else "", wish["runner_group_id"])
        runner = self._world.add_runner(scope, wish["name"], wish["labels"], group)
        config = encoded_jit_config(runner, self._views.url, wish.get("work_folder", "_work"))
        return jsonify({"runner": self._views.runner(runner), "encoded_jit_config": config}), HTTPStatus.CREATED

    def runner(self, runner_id: int, owner: str, repo: str | None = None) -> Answer:
        return jsonify(self._views.runner(self._world.runner_in(self._scope(owner, repo), runner_id)))

    def remove(self, runner_id: int, owner: str, repo: str | None = None) -> Answer:
        self._world.remove_runner(self._scope(owner, repo), runner_id)
        return nothing()


class RunsApi:
    """Repositories, their workflow runs and the jobs of these; while one is shown, nothing changes."""

    def __init__(self, world: World, login: Login, views: Views) -> None:
        self._world = world
        self._login = login
        self._views = views

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes, actions = Blueprint("runs_api", __name__), f"{REPOSITORY}/actions"
        routes.get("/installation/repositories")(self.repositories)
        routes.get(f"{actions}/jobs/<int:job_id>")(self.job)
        routes.post(f"{actions}/jobs/<int:job_id>/rerun")(self.rerun_one)
        routes.get(f"{actions}/runs")(self.runs)
        routes.get(f"{actions}/runs/<int:run_id>")(self.run)
        routes.get(f"{actions}/runs/<int:run_id>/jobs")(self.jobs)
        routes.post(f"{actions}/runs/<int:run_id>/rerun-failed-jobs")(self.rerun)
        return routes

    def repositories(self) -> Answer:
        """List those of the installation that asks; each exists since its first run."""
        names = self._world.repositories_of(self._login.require_any())
        page = [self._views.repository(name) for name in page_of(names)]
        return jsonify({"total_count": len(names), "repositories": page})

    def job(self, owner: str, repo: str, job_id: int) -> Answer:
        with self._world.changed:
            return jsonify(self._views.job(self._job(owner, repo, job_id)))

    def runs(self, owner: str, repo: str) -> Answer:
        self._login.require_installation(owner)
        with self._world.changed:
            rows = [run for run in self._world.runs.values() if is_in(run, owner, repo)]
            if wanted := request.args.get("status"):
                rows = [run for run in rows if wanted in {status_of(run), run.conclusion}]
            page = page_of(list(reversed(rows)))
            return jsonify({"total_count": len(rows), "workflow_runs": [self._views.run(row) for row in page]})

    def run(self, owner: str, repo: str, run_id: int) -> Answer:
        with self._world.changed:
            return jsonify(self._views.run(self._run(owner, repo, run_id)))

    def jobs(self, owner: str, repo: str, run_id: int) -> Answer:
        """List the jobs of the latest attempt, or of all of them."""
        with self._world.changed:
            run = self._run(owner, repo, run_id)
            rows = run.jobs if request.args.get("filter") == "all" else run.of_attempt()
            return jsonify({"total_count": len(rows), "jobs": [self._views.job(row) for row in page_of(rows)]})

    def rerun(self, owner: str, repo: str, run_id: int) -> Answer:
        self._world.rerun_failed(self._run(owner, repo, run_id))
        return jsonify({}), HTTPStatus.CREATED

    def rerun_one(self, owner: str, repo: str, job_id: int) -> Answer:
        self._world.rerun_job(self._job(owner, repo, job_id))
        return jsonify({}), HTTPStatus.CREATED

    def _run(self, owner: str, repo: str, run_id: int) -> Run:
        self._login.require_installation(owner)
        found = self._world.runs.get(run_id)
        if found is None or not is_in(found, owner, repo):
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found

    def _job(self, owner: str, repo: str, job_id: int) -> Job:
        self._login.require_installation(owner)
        found = self._world.jobs.get(job_id)
        if found is None or not is_in(found.run, owner, repo):
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found


def is_in(run: Run, owner: str, repo: str) -> bool:
    """Say whether a run is of this repository, which GitHub compares without case."""
    return run.repository.lower() == f"{owner}/{repo}".lower()
