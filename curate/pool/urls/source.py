"""What a recipe says of lists of URLs, and where their shards are."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from curate.download.policy import NetworkPolicy
from curate.pool.columns import Columns
from curate.recipe.section import UserPath, UserPaths, find_twice
from curate.recipe.source import Source
from curate.store.layout import POOL
from curate.store.manifest import find_digest
from curate.store.store import RunStore

Hash = Literal["md5", "sha256", "sha512"]
RESIZING = (
    *("resize_mode", "resize_only_if_bigger", "upscale_interpolation", "downscale_interpolation", "encode_quality"),
    *("encode_format", "skip_reencode", "min_image_size", "max_image_area", "max_aspect_ratio"),
)
_Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos", "lanczos4"]


class UrlsSource(Source):
    """A source that is lists of URLs with captions. Options under img2dataset's names are its own, with its defaults, but that images
    stay as they came where there is no `image_size`, and that shards have 1,000 rows: units, and what a kill costs, are small.

    The rows are those of lists (`path`), whose columns are `column_names` where CSV or TSV has no header line, or what a finished run
    over a list kept (`from`, here `from_run`). `network` says how servers are asked, `store` where the shards lie; None: in `pool/` of
    the run.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"thread_count", "store"})
    optional_fields: ClassVar[frozenset[str]] = Source.optional_fields | {"path", "from", "column_names"}

    path: UserPaths = ()
    from_run: UserPath | None = Field(None, alias="from", min_length=1)
    columns: Columns = Columns()
    column_names: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, min_length=2)
    network: NetworkPolicy
    store: UserPath | None = None
    number_sample_per_shard: int = Field(1000, ge=2, le=100_000)
    thread_count: int = Field(256, ge=1)
    timeout: float = Field(10.0, gt=0)
    extract_exif: bool = True
    compute_hash: Hash | None = "sha256"
    verify_hash: tuple[Annotated[str, Field(min_length=1)], Hash] | None = None
    disallowed_header_directives: tuple[str, ...] | None = None
    image_size: int | None = Field(None, ge=1)
    resize_mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = "border"
    resize_only_if_bigger: bool = False
    upscale_interpolation: _Interpolation = "lanczos"
    downscale_interpolation: _Interpolation = "area"
    encode_quality: int = Field(95, ge=0, le=100)
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    skip_reencode: bool = False
    min_image_size: int = Field(0, ge=0)
    max_image_area: float | None = Field(None, gt=0)
    max_aspect_ratio: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if bool(self.path) == bool(self.from_run):
            raise ValueError(
                "give either path, of lists of URLs, or from, the folder of a finished run over such lists"
            )
        if self.from_run and self.columns != Columns():
            raise ValueError(
                "columns: the run that the rows are from says which column holds what; accepted: with path"
            )
        if twice := find_twice(self.column_names or ()):
            raise ValueError(f"column_names: two columns are named {twice!r}")
        return self

    @property
    def input_run(self) -> str | None:
        """The run that the rows are from."""
        return self.from_run

    @model_validator(mode="after")
    def _resizes(self) -> Self:
        fields = type(self).model_fields
        named = [name for name in RESIZING if getattr(self, name) != fields[name].default]
        if named and self.image_size is None:
            raise ValueError(
                f"{named[0]}: images stay as they came where there is no image_size; accepted: with image_size, or a rule such as "
                "min_side >= 100"
            )
        return self

    @model_validator(mode="after")
    def _as_img2dataset_takes_them(self) -> Self:
        if self.verify_hash and self.verify_hash[1] != self.compute_hash:
            raise ValueError(
                f"verify_hash: {self.verify_hash[1]} is verified, and compute_hash is {self.compute_hash}; accepted: both the same"
            )
        if self.encode_format == "png" and self.encode_quality > 9:
            raise ValueError(
                f"encode_quality: {self.encode_quality}; of png it is how hard bytes are compressed; accepted: 0 to 9"
            )
        return self

    _run: str = PrivateAttr("")  # the folder of the run that reads it
    _reuse: str | None = PrivateAttr(None)  # and of one that may have its shards

    def placed_in(self, run: str, reuse: str | None = None) -> Self:
        """Return the source as this run reads it, in whose folder its shards are by default, or that of another to begin with."""
        placed = self.model_copy()
        placed._run, placed._reuse = run, reuse
        return placed

    def place(self, name: str) -> tuple[RunStore, str]:
        """Return the store that a file of a shard is in, and its path there."""
        return (RunStore(self.store), name) if self.store else (RunStore(self._run), f"{POOL}/{name}")

    def places(self) -> list[str]:
        """Return the folders in which shards may be, that of the run to reuse last."""
        return [self.store] if self.store else [f"{run}/{POOL}" for run in (self._run, self._reuse) if run]

    def take(self, stem: str) -> bool:
        """Put a shard of the run to reuse into place, and return True, where that has it as its manifest says."""
        if self.store or not self._reuse:
            return False
        old, store = RunStore(self._reuse), RunStore(self._run)
        names = [f"{POOL}/{stem}{ending}" for ending in (".tar", ".parquet", "_stats.json")]
        found = [(name, find_digest(old, name)) for name in names if old.exists(name)]
        digests = [(name, digest) for name, digest in found if digest is not None]
        if len(digests) < len(names):
            return False
        for name, digest in digests:
            store.adopt(old, name, name, digest)
        return True

    def url_of(self, name: str) -> str:
        """Return where a file of a shard is."""
        store, path = self.place(name)
        return f"{store.url}/{path}"

    def row_fields(self) -> dict[str, Any]:
        """Return what determines the rows: of how servers are asked, what they may refuse."""
        fields = super().row_fields()
        for name in ("thread_count", "store", "from"):
            fields.pop(name, None)
        network = {name: getattr(self.network, name) for name in ("robots", "opt_out")}
        return fields | {"columns": self.columns.model_dump(exclude={"scores"}), "network": network}
