"""The expectations: what must hold for scenes and photographs before anything is trained on them.

A failed critical expectation stops the graph, a failed warning is shown and goes on. Each takes the form of a
Great Expectations object with a description that says why it is asked, so that the pages can be read alone.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from data.validate.params import Validate

TYPES = {
    "text": ["str"],
    "whole": ["int32", "int64"],
    "number": ["float32", "float64"],
}
COLUMNS = {
    "text": ["key", "source", "licence", "split", "shard", "sha256", "dhash", "class_name"],
    "whole": ["label", "offset", "bytes", "width", "height"],
    "number": ["brightness", "contrast"],
}
DRIFT_WORTH_A_LOOK = 0.1


def of_manifest(manifest: pd.DataFrame, p: Validate) -> list[Any]:
    """What both kinds of data must fulfil. The frame has the manifest's columns, `sha256_on_disk` and
    `duplicate_distance`."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    held_out = max(int((manifest["split"] == "val").sum()), 1) / max(len(manifest), 1)
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=2, description="There is something to train on and to hold out."),
        *(
            gxe.ExpectColumnValuesToBeInTypeList(column=column, type_list=TYPES[kind])
            for kind, columns in COLUMNS.items()
            for column in columns
        ),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column) for columns in COLUMNS.values() for column in columns),
        gxe.ExpectColumnValuesToBeUnique(column="key", description="No two samples have one name."),
        gxe.ExpectColumnValuesToBeUnique(column="sha256", description="No sample is stored twice."),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex=r"^[0-9a-f]{64}$"),
        gxe.ExpectColumnValuesToMatchRegex(column="dhash", regex=r"^[0-9a-f]{16}$"),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="sha256_on_disk", column_B="sha256", description="The shards hold the bytes of the manifest."
        ),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="split", value_set=["train", "val"]),
        *(
            gxe.ExpectColumnUniqueValueCountToBeBetween(
                column=side, min_value=1, max_value=1, description=f"All pictures have the same {side}."
            )
            for side in ("width", "height")
        ),
        gxe.ExpectColumnValuesToBeBetween(column="offset", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="bytes", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="brightness", min_value=0, max_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="contrast", min_value=0, max_value=0.5),
        gxe.ExpectColumnValuesToBeBetween(
            column="brightness",
            min_value=0.02,
            max_value=0.98,
            severity=FailureSeverity.WARNING,
            description="None is black or white.",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="contrast", min_value=0.01, severity=FailureSeverity.WARNING, description="None is a single colour."
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="duplicate_distance",
            min_value=p.duplicate_distance + 1,
            mostly=1 - p.max_duplicate_share * held_out,  # the share is one of held-out rows, the frame has all rows
            description=f"At most {p.max_duplicate_share:.1%} of the held-out pictures have a twin in training "
            f"(a difference hash within {p.duplicate_distance} bits).",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="duplicate_distance",
            min_value=p.duplicate_distance + 1,
            severity=FailureSeverity.WARNING,
            description="No held-out picture has a twin in training.",
        ),
    ]


def of_scenes(p: Validate) -> list[Any]:
    """What only data with depth must fulfil."""
    import great_expectations.expectations as gxe

    return [
        *(gxe.ExpectColumnValuesToNotBeNull(column=c) for c in ("depth_min", "depth_max", "valid_share")),
        gxe.ExpectColumnValuesToBeBetween(
            column="depth_min", min_value=0, strict_min=True, description="Every surface lies before the camera."
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="depth_max", column_B="depth_min", or_equal=True),
        gxe.ExpectColumnValuesToBeBetween(column="valid_share", min_value=0, max_value=1),
        gxe.ExpectColumnValuesToBeBetween(
            column="valid_share",
            min_value=p.min_valid_share,
            description="Enough of each picture is surface, not sky, to learn depth from.",
        ),
        gxe.ExpectColumnValuesToBeBetween(column="label", min_value=0),
    ]


def of_photos() -> list[Any]:
    """What only unlabelled photographs must fulfil."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[-1], description="Photographs have no class."),
        gxe.ExpectColumnValuesToNotMatchRegex(
            column="source", regex="motorcycle_(?:left|right)", description="The benchmark is held out."
        ),
    ]


def of_classes(p: Validate) -> list[Any]:
    """Class balance, over the frame of `classes`."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="relative",
            min_value=1 - p.max_class_imbalance,
            max_value=1 + p.max_class_imbalance,
            description="Each class has about its even share of the scenes (1 = exactly).",
        ),
        gxe.ExpectColumnValuesToBeBetween(column="train", min_value=1, description="Each class can be learnt."),
        gxe.ExpectColumnValuesToBeBetween(
            column="val", min_value=1, severity=FailureSeverity.WARNING, description="Each class can be evaluated."
        ),
    ]


def of_drift(p: Validate) -> list[Any]:
    """Stability against the previous version, over the frame of `drift.compare`."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="psi",
            max_value=p.max_drift,
            description="Brightness and contrast are those of the previous version. If the change is meant, "
            "put statistics.json of this stage in place of validate.previous.",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="psi",
            max_value=DRIFT_WORTH_A_LOOK,
            severity=FailureSeverity.WARNING,
            description="Not even a small shift.",
        ),
    ]


def classes(manifest: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """One row per class, also for those without a sample: key (its name), train, val, relative (1 = even share)."""
    names = names or sorted(set(manifest["class_name"]))
    rows = []
    for name in names:
        own = manifest[manifest["class_name"] == name]
        split = own["split"].value_counts()
        relative = len(own) * len(names) / max(len(manifest), 1)
        rows.append(
            {"key": name, "train": int(split.get("train", 0)), "val": int(split.get("val", 0)), "relative": relative}
        )
    return pd.DataFrame(rows, columns=["key", "train", "val", "relative"])
