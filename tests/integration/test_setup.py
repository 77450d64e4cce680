"""`/setup` as a person walks it: a real `spot-runner serve`, the simulated GitHub, and a browser that follows forms."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.github.places import Place, simulated_github, until
from tests.integration.browser import Browser
from tests.integration.control_plane import PATIENCE_S, SPOT_RUNNER, ControlPlane, a_control_plane
from workers.bootstrap.github_app import app_login, open_vault, stored_app
from workers.bootstrap.setup import run_manual, run_setup
from workers.domain.errors import BadInput, GiveUp, Refused, Unfit
from workers.domain.github_app import PERMISSIONS, GitHubApp
from workers.settings import ControlSettings


@dataclasses.dataclass(frozen=True)
class FreshControlPlane(ControlPlane):
    """A control plane whose settings name no App: it is to make one."""

    github_url: str = ""

    def environment(self) -> dict[str, str]:
        named = super().environment()
        for name in ("WEBHOOK_SECRET_FILE", "GITHUB_KEY_FILE", "GITHUB_APP_ID"):
            del named[f"SPOT_RUNNER_{name}"]
        own = {"SPOT_RUNNER_GITHUB_URL": self.github_url, "SPOT_RUNNER_PUBLIC_URL": self.public_url}
        return named | own

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SPOT_RUNNER, *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    @property
    def settings(self) -> ControlSettings:
        return ControlSettings(home=self.home, github_url=self.github_url, public_url=self.public_url)

    def token(self) -> str:
        """As `spot-runner setup` prints it."""
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            assert run_setup(self.settings) == 0
        assert f"Open {self.public_url}/setup within an hour" in told.getvalue()
        return told.getvalue().split()[-1]

    @property
    def app(self) -> GitHubApp:
        app = stored_app(open_vault(self.settings))
        assert app is not None
        return app


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with simulated_github(tmp_path_factory.mktemp("github")) as place:
        yield place
        assert place.control.violations() == []


def fresh(directory: Path, github: Place) -> FreshControlPlane:
    made = a_control_plane(directory)
    return FreshControlPlane(directory, made.public_port, made.host_port, github.url)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory, github: Place) -> Iterator[FreshControlPlane]:
    """One that serves; its App is forgotten after each test, which costs less than another one."""
    control = fresh(tmp_path_factory.mktemp("control"), github)
    with control.serve():
        yield control


@pytest.fixture
def served(control: FreshControlPlane) -> Iterator[FreshControlPlane]:
    yield control
    for sealed in control.home.glob("*.sealed"):
        sealed.unlink()


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def come_in(browser: Browser, served: FreshControlPlane) -> None:
    browser.open(f"{served.public_url}/setup")
    assert browser.send(token=served.token()).status_code == 200
    assert [form.method for form in browser.forms] == ["GET"]


def make_app(browser: Browser, served: FreshControlPlane, name: str) -> None:
    come_in(browser, served)
    browser.send(name=name, organization="octo-org")
    browser.send()
    assert browser.send().status_code == 200
    assert browser.where == f"{served.public_url}/setup/check"


class TestInTheBrowser:
    def test_from_nothing_to_an_app_whose_deliveries_count(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        come_in(browser, served)
        browser.send(name="Octo Spot", organization="octo-org")
        for name, level in PERMISSIONS.items():
            assert f"<li>{name}: {level}</li>" in browser.page.text
        browser.send()
        assert browser.where == f"{github.url}/organizations/octo-org/settings/apps/new"
        browser.send()
        assert browser.where == f"{served.public_url}/setup/check"
        assert "The App is installed nowhere; install it at" in browser.page.text
        browser.click("Install it")
        assert browser.where == f"{github.url}/apps/octo-spot/installations/new"
        browser.send(account="octo-org")
        assert browser.where == f"{served.public_url}/setup/check"
        assert "It is installed in octo-org." in browser.page.text
        assert "Nothing is missing." in browser.page.text

        # The receiver, which has not been started again, takes what this App's secret has signed.
        job_id = github.control.start_jobs("octo-org/widgets", ["spot-runner"], [("one", "true")])[0]
        sent = until(
            lambda: [
                one
                for one in github.control.deliveries()
                if (one["job_id"], one["app_id"]) == (job_id, served.app.id) and one["delivered_at"]
            ],
            "the delivery was tried",
        )
        assert [one["status_code"] for one in sent] == [202]
        told = served.command("setup")
        assert (told.returncode, "Nothing is missing." in told.stdout) == (0, True)

    def test_the_key_and_the_secret_stand_nowhere(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        come_in(browser, served)
        pages = [browser.page.text, browser.send(name="Quiet Spot", organization="").text]
        browser.send()
        pages.append(browser.send().text)
        app = served.app
        assert app.key_pem.startswith("-----BEGIN RSA PRIVATE KEY-----")
        lines = [line for line in app.key_pem.splitlines() if len(line) > 40]
        secrets = [*lines, *app.webhook_secrets, *browser.http.cookies.values()]
        kept = [file.read_text("latin-1") for file in served.home.rglob("*") if file.is_file()]
        told = [*pages, *kept, served.log("serve")]
        assert not any(secret in text for secret in secrets for text in told)
        assert {file.stat().st_mode & 0o777 for file in served.home.glob("*.sealed")} == {0o600}

    def test_nobody_comes_in_without_the_token(self, served: FreshControlPlane, browser: Browser) -> None:
        token = served.token()
        browser.open(f"{served.public_url}/setup")
        for wrong in ("", "x", token[:-1]):
            answer = browser.http.post(f"{served.public_url}/setup/token", data={"token": wrong})
            assert (answer.status_code, len(browser.http.cookies)) == (403, 0)
        for path in ("/app?name=Octo", "/created?code=x&state=x", "/check"):
            assert browser.http.get(f"{served.public_url}/setup{path}").status_code == 403
        assert browser.send(token=token).status_code == 200
        with Browser() as another:
            another.open(f"{served.public_url}/setup")
            assert another.send(token=token).status_code == 403
            assert another.open(f"{served.public_url}/setup/app?name=Octo").status_code == 403

    def test_what_comes_back_from_github_must_be_what_this_browser_asked_for(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        """Somebody else's code would make their App ours, and their webhook secret the one that we trust."""
        come_in(browser, served)
        browser.send(name="Victim", organization="octo-org")
        state = browser.forms[0].action.partition("state=")[2]
        code = github.make_app(f"Attacker {served.public_port}")
        created = f"{served.public_url}/setup/created"
        with Browser() as another:
            assert another.open(f"{created}?code={code}&state={state}").status_code == 403
        for wrong in ("", "x", "a state"):
            assert browser.open(f"{created}?code={code}&state={wrong}").status_code == 403
        assert browser.open(f"{created}?code=..%2F..&state={state}").status_code == 400
        assert stored_app(open_vault(served.settings)) is None
        assert browser.open(f"{created}?code={'0' * 40}&state={state}").status_code == 403
        assert "GitHub answered 404" in browser.page.text
        assert browser.open(f"{created}?code={code}&state={state}").status_code == 403, "a state is good once"
        assert stored_app(open_vault(served.settings)) is None

    def test_once_there_is_an_app_the_door_is_shut(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        token = served.token()
        make_app(browser, served, f"First {served.public_port}")
        first = served.app
        with Browser() as another:
            assert another.open(f"{served.public_url}/setup").status_code == 403
            answer = another.http.post(f"{served.public_url}/setup/token", data={"token": token})
            assert (answer.status_code, "there is a GitHub App already" in answer.text) == (403, True)
        assert browser.open(f"{served.public_url}/setup/app?name=Second").status_code == 403
        code = github.make_app(f"Second {served.public_port}")
        assert browser.open(f"{served.public_url}/setup/created?code={code}&state=x").status_code == 403
        assert browser.open(f"{served.public_url}/setup").status_code == 200
        assert browser.where == f"{served.public_url}/setup/check"
        assert served.app == first

    def test_every_page_keeps_scripts_frames_and_foreign_forms_out(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        come_in(browser, served)
        setup = f"{served.public_url}/setup"
        browser.send(name='<script>alert("x")</script>', organization="octo-org")
        assert browser.scripts == 0
        assert "&lt;script&gt;" in browser.page.text
        pages = [browser.page, browser.open(setup), browser.open(f"{setup}/check"), browser.open(f"{setup}/app?name=")]
        for page in (*pages, httpx.get(f"{setup}/style.css", trust_env=False)):
            policy = page.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; ")
            assert f"form-action 'self' {github.url}" in policy
            assert "frame-ancestors 'none'" in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            assert page.headers["Cache-Control"] == "no-store"
            assert page.headers["Referrer-Policy"] == "strict-origin"

    def test_the_cookie_is_for_this_browser_and_these_pages_alone(
        self, served: FreshControlPlane, browser: Browser
    ) -> None:
        answer = browser.http.post(
            f"{served.public_url}/setup/token", data={"token": served.token()}, follow_redirects=False
        )
        attributes = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
        assert {"httponly", "path=/setup", "samesite=lax"} <= attributes

    def test_what_was_typed_wrong_is_one_sentence(self, served: FreshControlPlane, browser: Browser) -> None:
        come_in(browser, served)
        assert browser.send(name="x" * 35).status_code == 400
        assert "name: it has 35 characters; give the App a name of 1 to 34 printable ones" in browser.page.text

    def test_github_on_a_bad_day_is_a_sentence_and_the_check_can_be_repeated(
        self, served: FreshControlPlane, github: Place, browser: Browser
    ) -> None:
        make_app(browser, served, f"Patient {served.public_port}")
        github.control.plant("unavailable", "GET", "/app/hook/config")
        assert browser.open(f"{served.public_url}/setup/check").status_code == 503
        assert "GitHub answered 503" in browser.page.text
        assert browser.open(f"{served.public_url}/setup/check").status_code == 200


@dataclasses.dataclass(frozen=True)
class Files:
    """An App that was made elsewhere."""

    number: int
    key: Path
    secret: Path


class TestByHand:
    @pytest.fixture
    def files(self, tmp_path: Path, github: Place) -> Files:
        code = github.make_app(f"By hand {tmp_path.name[-20:]}")
        made = github.http.post(f"{github.url}/app-manifests/{code}/conversions").json()
        (tmp_path / "k").write_text(made["pem"])
        (tmp_path / "s").write_text(made["webhook_secret"] + "\n")
        return Files(made["id"], tmp_path / "k", tmp_path / "s")

    @pytest.fixture
    def unserved(self, tmp_path: Path, github: Place) -> FreshControlPlane:
        (tmp_path / "control").mkdir()
        return fresh(tmp_path / "control", github)

    def keep(self, control: FreshControlPlane, files: Files, *, may_replace: bool = False) -> int:
        return run_manual(control.settings, files.number, files.key, files.secret, may_replace=may_replace)

    def test_an_app_that_exists_is_checked_and_kept(
        self, unserved: FreshControlPlane, files: Files, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.keep(unserved, files) == 1
        told = capsys.readouterr()
        assert "installed nowhere" in told.out
        assert f"set its webhook URL to {unserved.public_url}/github at " in told.out
        assert "BEGIN" not in told.out + told.err
        assert unserved.app == GitHubApp(files.number, files.key.read_text(), (files.secret.read_text().strip(),))
        with pytest.raises(Refused, match="there is a GitHub App already"):
            self.keep(unserved, files)
        files.secret.write_text("one\ntwo\n")
        assert self.keep(unserved, files, may_replace=True) == 1
        assert unserved.app.webhook_secrets == ("one", "two")

    def test_an_app_that_anybody_may_install_is_told_of_until_a_list_says_who_is_served(
        self, unserved: FreshControlPlane, files: Files, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.keep(unserved, files)
        capsys.readouterr()
        for allowed, is_said in ((("octo-org",), False), ((), True)):
            settings = unserved.settings.model_copy(update={"installations_allowed": allowed})
            assert run_setup(settings) == 1, "it is installed nowhere"
            assert ("- The App is public: anybody " in capsys.readouterr().out) is is_said

    def test_what_is_not_given_is_asked_for(self, unserved: FreshControlPlane, files: Files) -> None:
        told = subprocess.run(
            [*SPOT_RUNNER, "setup", "--manual"],
            env=unserved.environment(),
            input=f"{files.number}\n{files.key}\n{files.secret}\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (told.returncode, "installed nowhere" in told.stdout) == (1, True), told.stderr
        assert unserved.app.id == files.number

    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("k", "nonsense", "private key is of no use"),
            ("k", None, "key file"),
            ("s", "\n", "has 0 lines"),
            ("s", "1\n2\n3", "has 3 lines"),
        ],
    )
    def test_files_of_no_use_are_refused_and_nothing_is_kept(
        self, unserved: FreshControlPlane, files: Files, tmp_path: Path, file: str, content: str, said: str
    ) -> None:
        (tmp_path / file).unlink()
        if content is not None:
            (tmp_path / file).write_text(content)
        with pytest.raises(GiveUp, match=said):
            self.keep(unserved, files)
        assert not list(unserved.home.glob("*.sealed"))

    def test_an_app_that_github_does_not_know_is_not_kept(self, unserved: FreshControlPlane, files: Files) -> None:
        with pytest.raises(Refused, match="GitHub answered 401"):
            self.keep(unserved, dataclasses.replace(files, number=999_999))
        assert not list(unserved.home.glob("*.sealed"))

    @pytest.mark.parametrize("url", [None, "", "runners.example.org", "https://x y"])
    def test_without_an_address_for_github_there_is_no_way(
        self, unserved: FreshControlPlane, files: Files, url: str | None
    ) -> None:
        settings = ControlSettings(home=unserved.home, github_url=unserved.github_url, public_url=url)
        with pytest.raises(BadInput, match="set SPOT_RUNNER_PUBLIC_URL"):
            run_setup(settings)
        with pytest.raises(BadInput, match="set SPOT_RUNNER_PUBLIC_URL"):
            run_manual(settings, files.number, files.key, files.secret, may_replace=False)
        assert not list(unserved.home.glob("*.sealed"))

    def test_the_worker_logs_in_as_the_app_that_is_kept(self, unserved: FreshControlPlane, files: Files) -> None:
        with pytest.raises(Unfit, match="`spot-runner setup` says how one is made"):
            app_login(unserved.settings)
        self.keep(unserved, files)
        assert app_login(unserved.settings) == (files.number, files.key.read_text())
        own = ControlSettings(home=unserved.home, github_app_id=1, github_key_file=files.secret)
        assert app_login(own) == (1, files.secret.read_text())
