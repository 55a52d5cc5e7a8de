"""The page of the command line, out of the signatures of its commands."""

from __future__ import annotations

import inspect
import re
import typing

import typer
from typer.models import ArgumentInfo

from docs_markdown import MADE, page, table, wrapped
from torchxrayvision.cli import app


def commands_page():
    """docs/commands.md."""
    return page(
        MADE,
        "# Commands",
        wrapped(
            "After this page you know every command and its options.",
            "`xrv COMMAND --help` shows the same. The exit code is 0 when all went well, 1 when "
            "some files could not be read, 2 when a command could not begin, 130 when it was "
            "interrupted.",
        ),
        *sections(app, "xrv"),
    )


def sections(group, name):
    if group.info.invoke_without_command is True:  # a command that has commands
        yield section(name, group.registered_callback.callback)
    for command in group.registered_commands:
        function = command.callback
        yield section(f"{name} {command.name or function.__name__}", function)
    for below in group.registered_groups:
        yield from sections(below.typer_instance, f"{name} {below.name}")


def section(name, function):
    """Heading, docstring and options of one command."""
    rows = [row(parameter) for parameter in parameters(function) if not parameter[2].hidden]
    usage = " ".join([name, *(shown for shown, _, _ in rows if not shown.startswith("--"))])
    shown = [(f"`{option}`", *others) for option, *others in rows]
    return page(
        f"## {name}",
        marked(inspect.getdoc(function)),
        f"```\n{usage}{' [OPTIONS]' * any(o.startswith('--') for o, _, _ in rows)}\n```",
        table(["", "", "default"], shown) if rows else "",
    )


def marked(text):
    """Options and files as code, where a docstring for a terminal has them plain."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(--[\w-]+|OUT/[\w.]+)", r"`\1`", part) for part in parts[::2]]
    return "`".join(parts)


def parameters(function):
    """Name, type, what typer is told of it, and default, of each parameter."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:
            continue
        kind, info = typing.get_args(hints[name])[:2]
        yield name, kind, info, parameter.default


def row(parameter):
    """How it is written, what it is, and what it is if not given."""
    name, kind, info, default = parameter
    many = "list" in str(kind)
    required = default is inspect.Parameter.empty
    if isinstance(info, ArgumentInfo):
        written = name.upper() + "..." * many
        return written if required else f"[{written}]", meaning(info), "required" * required
    named = [info.default, *(info.param_decls or ())]  # typer puts the first name there
    option = next((n for n in named if isinstance(n, str)), "--" + name.replace("_", "-"))
    empty = default is None or isinstance(default, bool)
    return option, meaning(info), "required" if required else "" if empty else f"`{default}`"


def meaning(info):
    limits = []
    if info.min is not None:
        limits.append(f"at least {info.min:g}")
    if info.max is not None:
        limits.append(f"at most {info.max:g}")
    return f"{info.help} ({', '.join(limits)})" if limits else info.help
