"""The run configuration: one section a stage, cross-checked."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from didgen.settings.arms import DEFAULT_ARMS, check_control, parse_arm, with_methods
from didgen.settings.augment import Settings as AugmentSettings
from didgen.settings.base import LARGEST_SEED, Place, Seed, Seeded
from didgen.settings.caption import Settings as CaptionSettings
from didgen.settings.classify import Settings as ClassifySettings
from didgen.settings.data import Settings as DataSettings
from didgen.settings.fidelity import Settings as FidelitySettings
from didgen.settings.filter import Settings as FilterSettings
from didgen.settings.finetune import Settings as FinetuneSettings
from didgen.settings.images import Settings as ImagesSettings
from didgen.settings.label_fidelity import Settings as LabelFidelitySettings
from didgen.settings.maps import Settings as MapsSettings
from didgen.settings.methods import METHODS, sets_made, tasks_taught
from didgen.settings.pairs import Settings as PairsSettings
from didgen.settings.prompts import Settings as PromptsSettings
from didgen.settings.report import Settings as ReportSettings
from didgen.settings.rivals import Methods, unfit
from didgen.settings.segment import Settings as SegmentSettings
from didgen.settings.sets import SyntheticSet, check_sets
from didgen.settings.verdict import Settings as VerdictSettings


class RunConfig(Seeded):
    """Everything that defines a run. A section left out has its defaults."""

    run: str = Field(
        "demo",
        # No dot first, as in `..`; 60 letters fit in the 255 bytes of a file system's names.
        pattern=r"^\w[\w.-]*$",
        max_length=60,
        description="name of the run: results go to results/<run>/",
    )
    mirror: Place | None = Field(
        None, description="overrides data.mirror; meant for the command line: --config mirror=DIR"
    )
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        max_length=1000,
        description="seeds of the downstream trainings, the same in every arm; each draws its own "
        "order, and its own part of sets that are larger than the arm. With one the verdict is "
        "always `inconclusive`",
    )
    generator_seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="trainings of the generator and of every method, each with a seed of its own. "
        "`seeds` use them in turn, so that their number is a multiple of this one, and the verdict "
        "counts the seeds of one generator as one reader",
    )
    arms: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        DEFAULT_ARMS,
        max_length=1000,
        description="what networks are trained on, each for every seed: `original`, the controls "
        "`classic`, `duplicates`, `oversampled`, `weighted`, `synthetic`, and the names in `sets`; "
        "with a ratio, as in `synthetic-0.5x`, for a dose-response curve. `pseudo`, where training "
        "images lack a diagnosis or a mask: a first network labels them; where only one of both is "
        "lacking, `pseudo_labels` or `pseudo_masks`. `synthetic_only`: this run's synthetic images "
        "without the real ones, outside the verdict",
    )
    sets: dict[str, SyntheticSet] = Field(
        {},
        description="further synthetic sets, such as another run's or a baseline's, each under a "
        "name that `arms` takes; each has these keys",
    )
    methods: Methods = Field(
        Methods(),
        description="other systems, each trained on the same images; its sets are an arm of its "
        "name",
    )
    shards: int = Field(1, ge=1, le=1000, description="parallel jobs for `images` and for `pairs`")
    data: DataSettings = Field(DataSettings(), description="source, size and splits")
    caption: CaptionSettings = Field(CaptionSettings(), description="DermPrompt captions")
    finetune: FinetuneSettings = Field(FinetuneSettings(), description="the one fine-tuning")
    prompts: PromptsSettings = Field(
        PromptsSettings(), description="new prompts by a language model, for images.prompts: llm"
    )
    images: ImagesSettings = Field(ImagesSettings(), description="class-conditional images")
    pairs: PairsSettings = Field(PairsSettings(), description="lesion-mask pairs")
    filter: FilterSettings = Field(
        FilterSettings(), description="which pairs are kept; the paper keeps all"
    )
    augment: AugmentSettings = Field(AugmentSettings(), description="the augmented set")
    maps: MapsSettings = Field(MapsSettings(), description="attention maps of held-out images")
    classify: ClassifySettings = Field(ClassifySettings(), description="the classifier")
    segment: SegmentSettings = Field(SegmentSettings(), description="the segmenter")
    fidelity: FidelitySettings = Field(
        FidelitySettings(), description="how close synthetic images are to real ones"
    )
    label_fidelity: LabelFidelitySettings = Field(
        LabelFidelitySettings(), description="do synthetic images show the class asked for"
    )
    verdict: VerdictSettings = Field(VerdictSettings(), description="statistics and thresholds")
    report: ReportSettings = Field(ReportSettings(), description="the report page")

    @model_validator(mode="before")
    @classmethod
    def _mirror_reaches_the_data(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("mirror"):
            data = values.get("data") or {}
            if isinstance(data, dict):
                return {**values, "data": {**data, "mirror": values["mirror"]}}
        return values

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        for name, chosen in (("finetune", self.finetune.classes), ("images", self.images.classes)):
            absent = sorted(set(chosen or ()) - set(self.data.classes))
            if absent:
                raise ValueError(
                    f"{name}.classes: found {absent}, which data.classes leaves out; allowed are "
                    f"{list(self.data.classes)}"
                )
        untrained = set(self.images.classes or ()) - set(self.finetune.classes or self.data.classes)
        if untrained:
            raise ValueError(
                f"images.classes: found {sorted(untrained)}, which finetune.classes leaves out; "
                "the backbone would be asked for diagnoses that it never saw"
            )
        if self.images.prompts == "llm" and self.caption.captioner == "measure":
            raise ValueError(
                "images.prompts: found llm, but caption.captioner: measure has no model to ask; "
                "choose another captioner, or images.prompts: recombined"
            )
        tiny = self.finetune.backbone == "tiny"
        if tiny and self.data.size != 128 and self._uses_backbone():
            raise ValueError(
                f"data.size: found {self.data.size}, but finetune.backbone: tiny works at 128 px; "
                "set data.size: 128 or choose another backbone"
            )
        for name, own in self.methods.chosen.items():
            if fault := unfit(name, own, self.data.size, self.finetune.batch_size):
                raise ValueError(f"methods.{name}: {fault}")
        if len(self.seeds) % self.generator_seeds:
            raise ValueError(
                f"generator_seeds: found {self.generator_seeds} for {len(self.seeds)} seeds, "
                "expected a divisor of their number: each generator has as many seeds"
            )
        if self.seed + self.generator_seeds - 1 > LARGEST_SEED:
            raise ValueError(
                f"generator_seeds: found {self.generator_seeds} with seed {self.seed}, expected "
                f"seeds of generators up to {LARGEST_SEED}; lower `seed`"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected different numbers")
        return self

    @model_validator(mode="after")
    def _arms_can_be_compared(self) -> "RunConfig":
        methods = self.methods.chosen
        names = [parse_arm(arm).name for arm in with_methods(self.arms, methods)]
        if len(set(names)) != len(names):
            raise ValueError(f"arms: found {names}, expected different names")
        wanted = {"original", self.verdict.treatment, self.verdict.control}
        if not wanted <= set(names):
            raise ValueError(
                f"arms: found {names}, expected {sorted(wanted)} among them: the verdict compares "
                "verdict.treatment with verdict.control, and what is kept needs a network of "
                "`original`"
            )
        pseudo = [name for name in names if parse_arm(name).kind == "pseudo"]
        if pseudo and self.data.source == "phantoms":
            raise ValueError(
                f"arms: found {pseudo}, which label images without a diagnosis or a mask, but "
                "source phantoms has both for every image; leave them out"
            )
        if self.generator_seeds > 1 and parse_arm(self.verdict.treatment).set_name in self.sets:
            raise ValueError(
                f"generator_seeds: found {self.generator_seeds}, but verdict.treatment is "
                f"{self.verdict.treatment!r}, a set from elsewhere, of one generator; set it to 1"
            )
        tasks = {name: own.tasks for name, own in self.sets.items()}
        taught = {name: tasks_taught(name) for name in methods}
        check_sets(names, tasks, taught, self.verdict.treatment, self.data.tasks)
        check_control(self.verdict.control, self.verdict.treatment, self.data.tasks)
        return self

    def _uses_backbone(self) -> bool:
        """Whether anything in the run is made with a Stable Diffusion."""
        arms = [parse_arm(arm).set_name for arm in self.arms]
        lead = parse_arm(self.verdict.treatment).set_name
        made = sets_made(arms, lead, self.methods.model_dump())
        return any(METHODS[name].backbone for name in made)
