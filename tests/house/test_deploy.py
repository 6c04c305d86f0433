"""What is in deploy/ fits together, fits the code, and is right by the tools that will read it."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from flows import metrics
from flows.cli import parser
from flows.flow_metrics import CAUSES, FlowMetrics
from flows.health import ADDRESS, Thresholds
from flows.stack.downloads import APICURIO, KAFKA
from tests.house import promtool
from tests.unit.test_metrics import told
from tieout.stage import FATES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
RULE_TEST_FILES = [DEPLOY / "prometheus" / name for name in ("rules_test.yaml", "rules_days_test.yaml")]
RULE_TESTS = [test for path in RULE_TEST_FILES for test in yaml.safe_load(path.read_text())["tests"]]
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
RECORDS = {rule["record"]: rule for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
CATALOGUE = {metric.name: metric for metric in metrics.CATALOGUE}
HEALTH_PORT = int(ADDRESS.rpartition(":")[2])
CELL = MANIFESTS["statefulset"]["spec"]["template"]["spec"]["containers"][0]
POD = MANIFESTS["statefulset"]["spec"]["template"]
SINGLES = ("contract", "document", "control")
"""Flows that are one cell always, and the control, which is deployed like one."""
OTHERS = ("contract", "invoicing", "document")
"""Flows beside the usage flow, in the order in which compose makes their topics."""


def run(*command, given=None):
    answer = subprocess.run(command, capture_output=True, text=True, input=given, cwd=ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def options_of(words):
    """What the command line makes of the words after ``tieout``; fails where it knows one of them not."""
    try:
        return parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"'tieout {shlex.join(words)}' is not a command")


# Kubernetes


@pytest.mark.parametrize("version", ["1.31", "1.34", kubernetes_validate.latest_version()])
def test_every_manifest_has_the_fields_that_kubernetes_knows_and_no_other(version):
    checked = [name for name, manifest in MANIFESTS.items() if manifest["kind"] != "ServiceMonitor"]
    for name in checked:
        kubernetes_validate.validate(MANIFESTS[name], version, strict=True)
    own = [f"{flow}-{kind}" for flow in SINGLES for kind in ("deployment", "service")]
    cells = ["configmap", "poddisruptionbudget", "service", "statefulset"]
    assert sorted(checked) == sorted([*cells, *(f"invoicing-{kind}" for kind in cells), *own, "ticker"])
    misspelt = MANIFESTS["service"] | {"spec": MANIFESTS["service"]["spec"] | {"clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError, match="clusterIp"):
        kubernetes_validate.validate(misspelt, version, strict=True)


@pytest.mark.parametrize(("flow", "prefix"), [("usage", ""), ("invoicing", "invoicing-")])
def test_selectors_match_the_labels_that_they_mean(flow, prefix):
    cells, service = MANIFESTS[f"{prefix}statefulset"], MANIFESTS[f"{prefix}service"]
    labels = cells["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == flow
    named = {manifest["metadata"]["name"] for manifest in MANIFESTS.values() if manifest["metadata"]["labels"]["app.kubernetes.io/component"] == flow}
    assert named == {f"tieout-{flow}"}
    assert cells["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS[f"{prefix}poddisruptionbudget"]["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert cells["spec"]["template"]["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    assert cells["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("flow", SINGLES)
def test_selectors_of_a_flow_of_one_cell_match_its_own_labels(flow):
    deployment, asked = MANIFESTS[f"{flow}-deployment"], MANIFESTS[f"{flow}-service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == flow
    assert {deployment["metadata"]["name"], asked["metadata"]["name"]} == {f"tieout-{flow}"}
    assert deployment["spec"]["selector"]["matchLabels"] == asked["spec"]["selector"] == labels


def test_the_monitor_finds_the_services_of_all_flows():
    monitored = MANIFESTS["servicemonitor"]["spec"]["selector"]["matchLabels"].items()
    services = [manifest for manifest in MANIFESTS.values() if manifest["kind"] == "Service"]
    assert {service["metadata"]["name"] for service in services} == {f"tieout-{flow}" for flow in ("usage", "control", *OTHERS)}
    assert all(monitored <= service["metadata"]["labels"].items() for service in services)
    assert all(service["spec"]["ports"] == MANIFESTS["service"]["spec"]["ports"] for service in services)


def test_ports_are_the_health_endpoints_from_the_cell_to_the_monitor():
    assert CELL["ports"] == [{"name": "health", "containerPort": HEALTH_PORT}]
    assert MANIFESTS["service"]["spec"]["ports"] == [{"name": "health", "port": HEALTH_PORT, "targetPort": "health"}]
    endpoint = MANIFESTS["servicemonitor"]["spec"]["endpoints"][0]
    assert (endpoint["port"], endpoint["path"]) == ("health", "/metrics")
    for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        assert CELL[probe]["httpGet"] == {"path": path, "port": "health"}


def test_the_startup_probe_waits_for_the_longest_restore():
    startup = CELL["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= Thresholds().restore_seconds_max


def started_by(container, environment, folder):
    """The options that a container's command gives: it is run by a real shell, only ``tieout`` is one that says what it was given."""
    said = folder / "tieout"
    said.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    said.chmod(0o755)
    environment = environment | {"PATH": f"{folder}:/usr/bin:/bin"}
    return options_of(subprocess.run(container["command"], env=environment, capture_output=True, text=True, check=True).stdout.splitlines())


def settings_of(container):
    """The variables that a container takes from ConfigMaps, each by its own name."""
    references = {entry["name"]: entry["valueFrom"]["configMapKeyRef"] for entry in container["env"] if "configMapKeyRef" in entry["valueFrom"]}
    assert all(reference["key"] == name for name, reference in references.items())
    maps = {manifest["metadata"]["name"]: manifest["data"] for manifest in MANIFESTS.values() if manifest["kind"] == "ConfigMap"}
    return {name: maps[reference["name"]][name] for name, reference in references.items()}


@pytest.mark.parametrize("pod", ["tieout-usage-0", "tieout-usage-3", "my-tieout-usage-12"])
def test_a_pods_command_gives_its_cell_the_ordinal_in_its_name(tmp_path, pod):
    settings = MANIFESTS["configmap"]["data"]
    options = started_by(CELL, settings_of(CELL) | {"POD_NAME": pod}, tmp_path)
    assert (options.command, options.flow, options.cell) == ("run", "usage", int(pod.rpartition("-")[2]))
    assert (options.cells, options.generation) == (int(settings["CELLS"]), int(settings["GENERATION"]))
    assert (options.bootstrap, options.registry) == (settings["BOOTSTRAP"], settings["REGISTRY"])
    assert options.health_address == f"0.0.0.0:{HEALTH_PORT}"
    mounts = {mount["name"]: mount["mountPath"] for mount in CELL["volumeMounts"]}
    assert options.cache == mounts["cache"]
    assert options.client_config == f"{mounts['settings']}/client.properties"


def test_the_invoicing_flow_has_cells_like_the_usage_flows_in_a_number_of_its_own_and_no_volume(tmp_path):
    cells = MANIFESTS["invoicing-statefulset"]["spec"]
    pod, container = cells["template"]["spec"], cells["template"]["spec"]["containers"][0]
    shared, own = MANIFESTS["configmap"]["data"], MANIFESTS["invoicing-configmap"]["data"]
    options = started_by(container, settings_of(container) | {"POD_NAME": "tieout-invoicing-1"}, tmp_path)
    assert (options.command, options.flow, options.cell, options.cache) == ("run", "invoicing", 1, None)
    assert set(own) == {"CELLS", "GENERATION"}
    assert (options.cells, options.generation) == (cells["replicas"], int(own["GENERATION"])) == (int(own["CELLS"]), 1)
    assert (options.bootstrap, options.registry) == (shared["BOOTSTRAP"], shared["REGISTRY"])
    assert options.health_address == f"0.0.0.0:{HEALTH_PORT}"
    as_usage = MANIFESTS["statefulset"]["spec"]
    assert {name for name in as_usage if cells.get(name) != as_usage[name]} == {
        "serviceName", "replicas", "selector", "template", "volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy",
    }
    assert {name for name in POD["spec"] if pod.get(name) != POD["spec"][name]} == {"topologySpreadConstraints", "containers"}
    assert {name for name in CELL if container.get(name) != CELL[name]} == {"command", "env", "volumeMounts"}
    assert container["volumeMounts"] == [mount for mount in CELL["volumeMounts"] if mount["name"] != "cache"]
    budget = MANIFESTS["invoicing-poddisruptionbudget"]["spec"]
    assert {**budget, "selector": None} == {**MANIFESTS["poddisruptionbudget"]["spec"], "selector": None}


@pytest.mark.parametrize("flow", SINGLES)
def test_a_flow_of_one_cell_is_one_pod_with_the_settings_and_the_rights_of_the_cells(tmp_path, flow):
    deployment = MANIFESTS[f"{flow}-deployment"]["spec"]
    pod, container = deployment["template"]["spec"], deployment["template"]["spec"]["containers"][0]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    settings = MANIFESTS["configmap"]["data"]
    assert all(entry["valueFrom"]["configMapKeyRef"] == {"name": "tieout-usage", "key": entry["name"]} for entry in container["env"])
    options = started_by(container, settings_of(container), tmp_path)
    assert (options.command, options.flow, options.cells, options.bootstrap) == ("run", flow, 1, settings["BOOTSTRAP"])
    assert options.health_address == f"0.0.0.0:{HEALTH_PORT}"
    own = POD["spec"]["securityContext"]
    assert own | pod["securityContext"] == own
    for same in ("image", "ports", "startupProbe", "livenessProbe", "readinessProbe", "securityContext"):
        assert container[same] == CELL[same], same
    assert [mount for mount in CELL["volumeMounts"] if mount["name"] != "cache"] == container["volumeMounts"]
    assert pod["volumes"] == POD["spec"]["volumes"]


def test_what_a_pod_refers_to_is_there_and_nothing_is_left_over():
    settings = set(MANIFESTS["configmap"]["data"])
    from_environment = {entry["valueFrom"]["configMapKeyRef"]["key"] for entry in CELL["env"] if "configMapKeyRef" in entry["valueFrom"]}
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    from_files = {item["key"] for item in volumes["settings"]["configMap"]["items"]}
    assert from_environment | from_files == settings
    claims = {claim["metadata"]["name"] for claim in MANIFESTS["statefulset"]["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in CELL["volumeMounts"]} == set(volumes) | claims
    assert claims == {"cache"}
    assert MANIFESTS["statefulset"]["spec"]["replicas"] == int(MANIFESTS["configmap"]["data"]["CELLS"])


def test_a_pod_has_no_more_rights_than_it_needs():
    pod, container = POD["spec"]["securityContext"], CELL["securityContext"]
    assert pod["runAsNonRoot"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert CELL["resources"]["limits"]["memory"]


def test_the_ticker_runs_once_is_told_the_same_settings_as_the_cells_and_may_do_no_more():
    manifest = MANIFESTS["ticker"]
    pod = manifest["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert (manifest["kind"], manifest["spec"]["replicas"], manifest["spec"]["strategy"]) == ("Deployment", 1, {"type": "Recreate"})
    assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] != POD["metadata"]["labels"]
    settings = MANIFESTS["configmap"]["data"]
    script = container["command"][2].removeprefix("exec tieout ")
    for name in ("BOOTSTRAP", "REGISTRY"):
        script = script.replace(f"${name}", settings[name])
    assert container["command"][:2] == ["/bin/sh", "-c"]
    options, cells = options_of(shlex.split(script)), options_of(COMPOSE["services"]["ticker"]["command"])
    assert (options.command, options.flow, cells.command, cells.flow) == ("run", "ticker", "run", "ticker")
    assert (options.bootstrap, options.registry) == (settings["BOOTSTRAP"], settings["REGISTRY"])
    assert options.health_address == cells.health_address == f"0.0.0.0:{HEALTH_PORT}"
    assert container["env"] == [entry for entry in CELL["env"] if entry["name"] in {"BOOTSTRAP", "REGISTRY"}]
    assert [probe["httpGet"] for probe in (container["startupProbe"], container["livenessProbe"])] == [{"path": "/live", "port": "health"}] * 2
    assert container["volumeMounts"] == [mount for mount in CELL["volumeMounts"] if mount["name"] != "cache"]
    assert pod["spec"]["volumes"] == POD["spec"]["volumes"]
    assert (container["image"], container["securityContext"]) == (CELL["image"], CELL["securityContext"])
    assert pod["spec"]["securityContext"].items() <= POD["spec"]["securityContext"].items()
    assert pod["spec"]["automountServiceAccountToken"] is False


# The image and compose


def test_the_image_is_made_of_what_the_package_is_and_its_last_stage_builds_nothing():
    text = (DEPLOY / "Dockerfile").read_text()
    build, final = (stage for stage in re.split(r"^FROM ", text, flags=re.M)[1:])
    assert {build.split()[0], final.split()[0]} == {"python:3.12-slim"}
    copied = {source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", build, flags=re.M) for source in line.split()}
    assert all((ROOT / source).exists() for source in copied)
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in include} < copied
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == copied
    assert not re.search(r"\b(pip|apt|apt-get|gcc|make)\b", final)
    user = re.search(r"^USER (\d+):(\d+)$", final, flags=re.M)
    assert user.groups() == (str(POD["spec"]["securityContext"]["runAsUser"]), str(POD["spec"]["securityContext"]["runAsGroup"]))
    assert f"EXPOSE {HEALTH_PORT}" in final
    assert 'ENTRYPOINT ["tieout"]' in final


def test_compose_runs_every_cell_once_and_watches_it():
    cells = {name: options_of(service["command"]) for name, service in COMPOSE["services"].items() if name.startswith("usage-")}
    assert sorted(options.cell for options in cells.values()) == list(range(len(cells)))
    assert {options.cells for options in cells.values()} == {len(cells)}
    assert {options.generation for options in cells.values()} == {1}
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"] == [{"targets": [f"{name}:{HEALTH_PORT}" for name in cells]}]
    assert re.fullmatch("tieout-.+", scraped["job_name"])
    for name, options in cells.items():
        assert options.health_address == f"0.0.0.0:{HEALTH_PORT}"
        assert f"cache-{options.cell}:{options.cache}" in COMPOSE["services"][name]["volumes"]


@pytest.mark.parametrize("flow", OTHERS)
def test_compose_runs_each_other_flow_once_on_topics_of_its_own_and_watches_it(flow):
    one, made = (options_of(COMPOSE["services"][name]["command"]) for name in (flow, f"{flow}-topics"))
    usage = options_of(COMPOSE["services"]["usage-0"]["command"])
    assert (one.flow, one.cells, one.health_address) == (flow, 1, f"0.0.0.0:{HEALTH_PORT}")
    assert (one.bootstrap, one.registry, one.schema_lock) == (usage.bootstrap, usage.registry, usage.schema_lock)
    assert (made.flow, made.partitions) == (flow, options_of(COMPOSE["services"]["topics"]["command"]).partitions)
    assert set(COMPOSE["services"][flow]["depends_on"]) == {f"{flow}-topics", "lock"}
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    assert [job for job in scraped if job["job_name"] == f"tieout-{flow}"] == [{"job_name": f"tieout-{flow}", "static_configs": [{"targets": [f"{flow}:{HEALTH_PORT}"]}]}]


def test_compose_runs_the_control_once_the_topics_are_there_and_watches_it():
    one, usage = options_of(COMPOSE["services"]["control"]["command"]), options_of(COMPOSE["services"]["usage-0"]["command"])
    assert (one.flow, one.every, one.health_address) == ("control", 3600, f"0.0.0.0:{HEALTH_PORT}")
    assert (one.bootstrap, one.registry, one.schema_lock) == (usage.bootstrap, usage.registry, usage.schema_lock)
    assert set(COMPOSE["services"]["control"]["depends_on"]) == {"invoicing-topics", "lock"}
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"]
    assert {"job_name": "tieout-control", "static_configs": [{"targets": [f"control:{HEALTH_PORT}"]}]} in scraped


def test_compose_makes_the_flows_topics_one_after_the_other():
    """They have topics in common, and two that make one at a time are in each other's way."""
    order = ["topics", *(f"{flow}-topics" for flow in OTHERS)]
    assert [list(COMPOSE["services"][name]["depends_on"]) for name in order] == [["kafka"], *([name] for name in order[:-1])]


def test_compose_makes_topics_that_one_broker_can_hold_with_a_partition_for_every_cell():
    options = options_of(COMPOSE["services"]["topics"]["command"])
    assert (options.command, options.what, options.replication_factor) == ("topic", "create", 1)
    assert options.partitions >= sum(name.startswith("usage-") for name in COMPOSE["services"])


def test_compose_registers_the_schemas_where_the_cells_look_for_them():
    options = options_of(COMPOSE["services"]["schemas"]["command"])
    assert (options.command, options.what) == ("schema", "register")
    assert options.registry == options_of(COMPOSE["services"]["usage-0"]["command"]).registry


def test_compose_refers_to_what_is_there_listens_on_loopback_and_pins_its_images():
    services = COMPOSE["services"]
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA}"
    assert services["registry"]["image"] == f"apicurio/apicurio-registry:{APICURIO}"
    used = set()
    for service in services.values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
        assert set(service.get("depends_on", {})) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        used |= {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
    assert used == set(COMPOSE["volumes"])
    ports = [port.rpartition(":")[0] for service in services.values() for port in service.get("ports", [])]
    assert len(set(ports)) == len(ports)
    assert CELL["image"] == services["usage-0"]["image"]


# Prometheus


def selectors(expression):
    """(name, {label: value}) of every series in an expression."""
    bare = re.sub(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    for name, matchers in re.findall(r"(?<![\w:\"])([a-z_:][\w:]*)(?:\{([^}]*)\})?(?!\s*\(|[\w:])", bare):
        if name not in {"and", "or", "unless", "bool", "offset", "m", "h"}:
            yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', matchers))


def metric_of(name):
    for suffix in ("", "_bucket", "_sum", "_count"):
        found = CATALOGUE.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if found is not None and (not suffix or found.kind == "histogram"):
            return found
    return None


VALUES = {"fate": set(FATES), "cause": set(CAUSES)}
TARGET = {"job", "instance"}
"""Labels that Prometheus itself gives."""


@pytest.mark.parametrize("rule", [*ALERTS.values(), *RECORDS.values()], ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_only_for_metrics_labels_and_values_that_exist(rule):
    asked = list(selectors(rule["expr"]))
    assert asked
    for name, matchers in asked:
        if name == "up":
            continue
        if name.startswith("tieout:"):
            assert name in RECORDS, name
            continue
        metric = metric_of(name)
        assert metric is not None, f"no metric {name}"
        assert set(matchers) <= {*metric.labels, *TARGET}, name
        for label, value in matchers.items():
            assert label not in VALUES or set(value.split("|")) <= VALUES[label], value


def test_a_misspelt_metric_would_be_found():
    assert list(selectors('sum by (flow) (rate(tieout_events_totl{fate="held"}[5m])) > 0')) == [("tieout_events_totl", {"fate": "held"})]
    assert metric_of("tieout_events_totl") is None
    assert metric_of("tieout_commits_total_bucket") is None
    assert metric_of("tieout_commit_seconds_bucket") is metrics.COMMIT_SECONDS


def test_every_alert_is_operational_and_has_an_owner_a_severity_and_a_heading_in_the_runbook():
    for name, rule in ALERTS.items():
        assert rule["labels"]["domain"] == "operational"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["labels"]["owner"] in {"sre", "platform"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert rule["annotations"]["summary"]
    headings = re.findall(r"^## (Tieout\w+)$", RUNBOOK, flags=re.M)
    assert headings == list(ALERTS)


def test_every_alert_is_tested_where_it_fires_and_where_it_must_not():
    cases = [case for test in RULE_TESTS for case in test.get("alert_rule_test", [])]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(ALERTS)


def test_the_series_of_the_rules_tests_are_such_as_cells_expose():
    for test in RULE_TESTS:
        for series in test["input_series"]:
            ((name, labels),) = selectors(series["series"])
            if name != "up":
                metric = metric_of(name)
                assert metric is not None, name
                assert set(labels) - {*TARGET, "le"} == set(metric.labels), series["series"]


def test_promtool_accepts_the_rules_their_tests_and_the_configuration():
    tool = promtool.path()
    assert f"SUCCESS: {len(ALERTS) + len(RECORDS)} rules found" in run(tool, "check", "rules", DEPLOY / "prometheus/rules.yaml")
    run(tool, "check", "config", DEPLOY / "prometheus/prometheus.yaml")
    assert "SUCCESS" in run(tool, "test", "rules", *RULE_TEST_FILES)


def test_promtool_finds_nothing_to_say_of_the_metrics_names():
    assert run(promtool.path(), "check", "metrics", given=told(FlowMetrics("usage", [0])).exposition("")[0].decode()) == ""


# The runbook


def test_the_runbook_tells_only_commands_that_exist():
    commands = set(re.findall(r"`tieout ([a-z]+)((?: [a-z]+)?)", RUNBOOK))
    assert len(commands) > 5
    known = next(action.choices for action in parser()._actions if action.dest == "command")
    for command, what in sorted(commands):
        assert command in known, f"no command 'tieout {command}'"
        choices = next((action.choices for action in known[command]._actions if action.dest in {"what", "flow"} and action.choices), None)
        assert not what or (choices and what.strip() in choices), f"no command 'tieout {command}{what}'"


def test_the_runbook_names_only_metrics_that_exist():
    named = set(re.findall(r"`((?:tieout|process)_\w+)`", RUNBOOK))
    assert named
    assert named <= set(CATALOGUE)
