"""How help is shown: sentences flow, whatever lines the source has them on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

__all__ = ["HelpPage"]


class HelpPage:
    """The parser's own help, with the line breaks of docstrings taken out of their paragraphs."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:  # noqa: ANN401
        """Show how the command is written."""
        from cyclopts.help import DefaultFormatter

        DefaultFormatter().render_usage(console, options, usage)

    def render_description(
        self,
        console: Console,
        options: ConsoleOptions,
        description: Any,  # noqa: ANN401
    ) -> None:
        """Show what the command does."""
        from cyclopts.help import DefaultFormatter

        _flow(description)
        DefaultFormatter().render_description(console, options, description)

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show options or commands."""
        from cyclopts.help import DefaultFormatter

        for entry in panel.entries:
            _flow(entry.description)
        DefaultFormatter()(console, options, panel)


def _flow(shown: Any) -> None:  # noqa: ANN401 -- whatever the parser renders
    """Join the lines of each paragraph, in place; what is no plain text stays as it is."""
    from rich.text import Text

    text = getattr(shown, "primary_renderable", None)
    if isinstance(text, Text):
        paragraphs = text.plain.split("\n\n")
        flowing = (" ".join(paragraph.split()) for paragraph in paragraphs)
        text.plain = "\n\n".join(flowing)
