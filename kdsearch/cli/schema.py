"""`kdsearch schema`: JSON Schema of the study file, for editors that complete it."""

from __future__ import annotations

import json

from kdsearch.cli import output
from kdsearch.cli.options import Options


def schema(options: Options) -> None:
    """Print the JSON Schema of the study file.

    Editors with a YAML language server complete a study file with it, and underline what cannot be: keep
    it beside the file, whose first line is `# yaml-language-server: $schema=study.schema.json`.

    Example: kdsearch schema > study.schema.json
    """
    from kdsearch.search.schema import study_schema
    from kdsearch.search.spaces import registered

    made = study_schema(registered())
    if options.json:
        output.show(options, "schema", made, human=list)
    else:
        output.write(json.dumps(made, ensure_ascii=False, indent=2))
