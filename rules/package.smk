"""Where the package is, and the configuration as written, which Snakemake has not read yet."""

import importlib.util
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

BASE = workflow.current_basedir
# None where this file comes from the network, for a workflow that uses this one as a module.
HOME = Path(BASE.get_path_or_uri(secret_free=True)).parent if BASE.is_local else None
# In a checkout the package lies beside the rules; elsewhere it is installed beside snakemake.
CHECKOUT = HOME is not None and (HOME / "didgen" / "__init__.py").is_file()
if CHECKOUT:
    sys.path.insert(0, str(HOME))
elif importlib.util.find_spec("didgen") is None:
    raise WorkflowError(
        f"The package didgen is missing beside snakemake, whose interpreter is {sys.executable};"
        " install it there with pip, or use the workflow from a checkout"
    )

from didgen.settings.config_file import ConfigFileError, read_config_file

# Of a section that stands twice Snakemake would know the last one only. Where the default file is
# missing, Snakemake says so itself: a workflow that uses this one as a module may have none.
default = Path("config/config.yaml")
try:
    for path in workflow.overwrite_configfiles or ([default] if default.exists() else []):
        read_config_file(Path(path))
except ConfigFileError as error:
    raise WorkflowError(f"The configuration cannot be used:\n{error}") from None
