"""The plan of a run: what is current, restored or run, and the reasons, from a repository made of plain values."""

from dataclasses import dataclass, field, replace

from flows.pipeline.graph import Stage
from flows.pipeline.plan import Plan, Recorded, Step, make, overlap
from flows.show.table import plan_text

DATA = Stage("data", "make data", deps=("code.py",), params=("seed",), outs=("out/data",))
TRAIN = Stage("train", "make model", deps=("out/data", "train.py"), params=("lr",), outs=("out/m",), upstream=("data",))
REPORT = Stage("report", "make report", deps=("out",), outs=("report.html",), upstream=("data", "train"))


@dataclass
class Repository:
    """A fake of flows.pipeline.store.Store: the commit's files, dvc.lock, the run cache and what the cache holds."""

    files: dict = field(default_factory=lambda: {"code.py": "c1", "train.py": "t1"})
    values: dict = field(default_factory=lambda: {"data": {"seed": 1}, "train": {"lr": 0.1}, "report": {}})
    lock: dict = field(
        default_factory=lambda: {
            "data": Recorded("make data", {"code.py": "c1"}, {"seed": 1}, {"out/data": "d1"}),
            "train": Recorded("make model", {"out/data": "d1", "train.py": "t1"}, {"lr": 0.1}, {"out/m": "m1"}),
        }
    )
    earlier: dict = field(default_factory=dict)  # stage -> an execution with the present inputs
    lost: set = field(default_factory=set)  # hashes that the cache does not hold

    def recorded(self, stage):
        return self.lock.get(stage.name)

    def content(self, stage, dep, produced):
        return produced.get(dep, self.files.get(dep))

    def params(self, stage):
        return self.values[stage.name]

    def lacking(self, outs):
        return "its outputs are not in the cache" if self.lost.intersection(outs.values()) else ""

    def remembered(self, stage, deps):
        return self.earlier.get(stage.name)


def planned(world, *stages):
    return {step.stage: (step.action, step.reasons) for step in make(stages or (DATA, TRAIN), world).steps}


def test_nothing_changed_makes_an_empty_plan():
    assert make((DATA, TRAIN), Repository()).empty


def test_a_changed_parameter_runs_its_stage_alone_and_is_named_with_both_values():
    world = Repository()
    world.values["train"] = {"lr": 0.5}
    assert planned(world) == {"data": ("current", ()), "train": ("run", ("lr: 0.1 -> 0.5",))}


def test_nested_parameters_are_named_by_their_dotted_key():
    world = Repository()
    world.lock["train"] = replace(world.lock["train"], params={"lr": {"peak": 1, "end": 0}})
    world.values["train"] = {"lr": {"peak": 2, "end": 0, "warmup": 5}}
    assert planned(world)["train"][1] == ("lr.peak: 1 -> 2", "lr.warmup: new, 5")


def test_a_changed_file_runs_its_stage_and_all_that_follows():
    world = Repository()
    world.files["code.py"] = "c2"
    assert planned(world) == {"data": ("run", ("code.py changed",)), "train": ("run", ("after data",))}


def test_what_follows_a_running_stage_keeps_its_own_reasons():
    world = Repository()
    world.files |= {"code.py": "c2", "train.py": "t2"}
    assert planned(world)["train"] == ("run", ("train.py changed", "after data"))


def test_a_stage_without_a_record_has_never_run():
    world = Repository(lock={})
    assert planned(world) == {"data": ("run", ("has never run",)), "train": ("run", ("has never run", "after data"))}


def test_an_earlier_run_with_these_inputs_is_restored_and_its_outputs_are_what_the_next_stage_reads():
    world = Repository()
    world.values["data"] = {"seed": 2}
    world.earlier["data"] = Recorded("make data", outs={"out/data": "d2"})
    assert planned(world) == {"data": ("restore", ("seed: 1 -> 2",)), "train": ("run", ("out/data changed",))}


def test_the_same_outputs_from_another_run_leave_the_next_stage_alone():
    world = Repository()
    world.values["data"] = {"seed": 2}
    world.earlier["data"] = Recorded("make data", outs={"out/data": "d1"})
    assert planned(world)["train"] == ("current", ())


def test_outputs_that_left_the_cache_are_made_again():
    world = Repository(lost={"m1"})
    assert planned(world)["train"] == ("run", ("its outputs are not in the cache",))


def test_a_missing_file_a_new_dependency_and_a_changed_command_are_told_apart():
    world = Repository()
    del world.files["train.py"]
    stage = replace(TRAIN, cmd="make better model", deps=(*TRAIN.deps, "extra.py"))
    world.files["extra.py"] = "e1"
    reasons = planned(world, DATA, stage)["train"][1]
    assert reasons == ("its command changed", "train.py is missing", "extra.py is a new dependency")


def test_a_dependency_that_was_dropped_is_a_reason():
    assert planned(Repository(), DATA, replace(TRAIN, deps=("out/data",)))["train"][1] == (
        "train.py is no dependency any more",
    )


def test_a_folder_with_outputs_of_several_stages_waits_for_each_that_runs():
    world = Repository()
    world.values["train"] = {"lr": 0.5}
    assert planned(world, DATA, TRAIN, REPORT)["report"] == ("run", ("has never run", "after train"))


def test_a_long_list_of_reasons_is_cut_and_counted():
    step = Step("train", "run", tuple(f"file{i}.py changed" for i in range(9)))
    assert step.why().endswith("file5.py changed; and 3 more")


def test_a_plan_prints_as_columns_and_as_json():
    plan = Plan((Step("data", "current"), Step("train", "run", ("lr: 0.1 -> 0.5",))))
    assert plan_text(plan).splitlines()[1:] == ["data   current", "train  run      lr: 0.1 -> 0.5"]
    assert plan.to_json()[1] == {"stage": "train", "action": "run", "reasons": ["lr: 0.1 -> 0.5"]}


def test_paths_overlap_when_one_lies_in_the_other():
    assert overlap("artifacts", "artifacts/a")
    assert overlap("artifacts/a/b", "artifacts/a")
    assert not overlap("artifacts/a", "artifacts/ab")
