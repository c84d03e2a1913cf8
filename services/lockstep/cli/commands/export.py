"""`lockstep export`: queues as objects of Kubernetes, for `kubectl apply`.

Here belongs which queues are written, and what is told of the others. Never here: how an object looks (`manifests`).
The law: nothing is changed in the broker; whoever applies what was printed has the queues as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import typer

from lockstep import QueueProperties
from lockstep.cli.context import DEFAULT_NAMESPACE, CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.manifests import (
    Form,
    Manifest,
    NotDeclarable,
    document,
    is_namespace,
    manifest,
    object_names,
)
from lockstep.cli.options import wrong_usage
from lockstep.core.wording import counted

EPILOG = """
Examples:
  lockstep export > queues.yaml
  lockstep export --namespace shop --deletion-policy Retain | kubectl apply -f -
  lockstep export --all-namespaces --managed > backup.yaml
  lockstep export --into shop | kubectl apply --dry-run=server -f -
"""


class Policy(StrEnum):
    """What becomes of a queue when its object is deleted."""

    DELETE = "Delete"
    DELETE_IF_EMPTY = "DeleteIfEmpty"
    RETAIN = "Retain"


def export(
    ctx: typer.Context,
    *,
    all_namespaces: Annotated[
        bool,
        typer.Option("--all-namespaces", "-A", help="The queues of all broker namespaces."),
    ] = False,
    managed: Annotated[
        bool,
        typer.Option(
            "--managed", help="Also queues that something keeps already, an operator say."
        ),
    ] = False,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE",
            help="The Kubernetes namespace of the objects, where the release has"
            " broker.namespaceMapping: Flat; else it is called as the broker namespace.",
        ),
    ] = None,
    broker: Annotated[
        str, typer.Option(metavar="NAME", help="The Broker object that the queues name.")
    ] = "default",
    deletion_policy: Annotated[
        Policy | None,
        typer.Option(
            metavar="POLICY",
            help="Delete, DeleteIfEmpty or Retain: what becomes of a queue when its object is"
            " deleted; none leaves that to the operator.",
        ),
    ] = None,
) -> None:
    """Print the queues that nobody keeps as objects for `kubectl apply`.

    Each becomes a Queue object of lockstep.dev/v1alpha1, in YAML, or a List with --json. An object says
    only what differs from the defaults; the operator then takes the queue over as it is, with all its
    messages. Nothing is changed by this command.
    """
    line = command_line(ctx)
    if into is not None:
        _check_into(ctx, line, into, all_namespaces=all_namespaces)
    if not is_namespace(broker):
        raise wrong_usage(ctx, f"No Broker can be called '{broker}'.")
    form = Form(into, broker, None if deletion_policy is None else deletion_policy.value)
    with line.connect() as client, client.get_administration_client() as administration:
        queues = list(administration.list_queues(all_namespaces=all_namespaces))
    refused: dict[str, str] = {}
    made = list(_manifests(queues, form, refused, has_managed=managed))
    _print(line, made, len(queues))
    if refused:
        raise CommandFailed(_refusal(refused))


def _check_into(ctx: typer.Context, line: CommandLine, into: str, *, all_namespaces: bool) -> None:
    if all_namespaces or line.namespace != DEFAULT_NAMESPACE:
        raise wrong_usage(
            ctx,
            f"With --into, only queues of the broker namespace '{DEFAULT_NAMESPACE}' can be declared.",
        )
    if not is_namespace(into):
        raise wrong_usage(ctx, f"No namespace of Kubernetes can be called '{into}'.")


def _manifests(
    queues: Iterable[QueueProperties], form: Form, refused: dict[str, str], *, has_managed: bool
) -> Iterator[Manifest]:
    """Yield an object for each queue that is wanted; which ones none can declare is added to `refused`, with why."""
    for namespace, group in groupby(queues, key=lambda queue: queue.namespace):
        found = list(group)
        # Of all queues: a name must not become that of an object that keeps another one.
        names = object_names(queue.name for queue in found)
        for queue in found:
            if queue.manager is not None and not has_managed:
                continue
            try:
                yield manifest(queue, names[queue.name], form)
            except NotDeclarable as error:
                refused[f"{namespace}/{queue.name}"] = str(error)


def _print(line: CommandLine, made: list[Manifest], found: int) -> None:
    if line.output.is_json:
        items = [one.body for one in made]
        line.output.data({"apiVersion": "v1", "kind": "List", "items": items})
        return
    for one in made:
        line.output.raw(document(one).encode())
    kept = found - len(made)
    rest = f" Left out: {counted(kept, 'queue')}." if kept else ""
    line.output.note(f"{counted(len(made), 'object')} printed.{rest}")


def _refusal(refused: Mapping[str, str]) -> Failure:
    told = "; ".join(f"{path}: {why}" for path, why in refused.items())
    return Failure(
        "NOT_DECLARABLE",
        f"{counted(len(refused), 'queue')} cannot be declared by an object, all others were printed. {told}.",
        ExitCode.FAILED,
        refused,
    )
