"""The recipe's keys for lists of URLs, the policy for requests (`network`), and the folders of the shards."""

import ipaddress
import re
from operator import not_
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, model_validator

from curate.download.addresses import Network, refusal
from curate.download.shard_names import ENDINGS
from curate.read.columns import Columns
from curate.recipe.section import Column, Section, UserPath, UserPaths, find_twice
from curate.recipe.source import Source
from curate.store.layout import POOL
from curate.store.store import RunStore
from curate.store.validity import recorded_digest

Hash = Literal["md5", "sha256", "sha512"]
RESIZING = (
    *("resize_mode", "resize_only_if_bigger", "upscale_interpolation", "downscale_interpolation", "encode_quality"),
    *("encode_format", "skip_reencode", "min_image_size", "max_image_area", "max_aspect_ratio"),
)
_Text = Annotated[str, Field(min_length=1)]
_Mode = Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"]
_Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos", "lanczos4"]
_CONTACT = r"^(https?://|mailto:)?[!-~]+[.@][!-~]+$"
# FetchErrors report a limit with an address or an amount
_ADDRESS, _NUMBER = re.compile(r"(\S+) is "), re.compile(r"(more than )?([\d,]+)(?: bytes)?")


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; accepted: a network such as 127.0.0.0/8 or fd00::/8") from None


def _contact(text: str) -> str:
    if not re.fullmatch(_CONTACT, text):
        raise ValueError("accepted: your email address, or the URL of a page about you")
    return text


_Contact = Annotated[str, AfterValidator(_contact), Field(json_schema_extra={"pattern": _CONTACT})]


class NetworkPolicy(Section):
    """How to download: which servers to ask, how often, and how much to accept.

    Only http and https, and only public addresses, are used. Addresses are checked at each connection, also after
    redirects. The headers that opt an image out are X-Robots-Tag (img2dataset's directives and `none`),
    TDM-Reservation, and Content-Usage. /.well-known/tdmrep.json and `Content-Usage` rules in robots.txt are not read.
    """

    example: ClassVar[Any] = {"contact": "you@example.org"}

    contact: _Contact = Field(examples=["you@example.org"])
    """Your email address or page. Every server receives it."""
    allow_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field((), examples=[["10.0.0.0/8"]])
    """Networks that are allowed although they are not public, such as 127.0.0.0/8 for this machine."""
    robots: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """Whether to respect robots.txt."""
    opt_out: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """Whether to respect headers that opt an image out of machine learning."""
    max_bytes: int = Field(100_000_000, examples=[20_000_000], gt=0)
    """Maximum bytes per download."""
    max_seconds: float = Field(60.0, examples=[30], gt=0)
    """Maximum seconds per download, from name lookup to the last byte."""
    max_redirects: int = Field(5, examples=[3], ge=0)
    """Maximum redirects per download."""
    per_host: int = Field(4, examples=[2], gt=0)
    """Maximum connections to one host at a time, over all workers."""
    attempts: int = Field(3, examples=[5], ge=1)
    """Attempts per run, and per `--retry`, after 408, 425, 429, 5xx, DNS errors, and timeouts."""
    pause: float = Field(1.0, examples=[2], gt=0)
    """Seconds before the second attempt. The pause doubles each time, unless the server sets it."""
    max_pause: float = Field(30.0, examples=[60], gt=0)
    """Maximum seconds per pause."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The allowed networks that are not public."""
        return tuple(map(ipaddress.ip_network, self.allow_networks))

    def allows_now(self, reason: str | None, detail: str | None) -> bool:
        """Return whether limits refused a URL that this policy allows: its address, size, or number of redirects."""
        if reason == "refused_address":
            address = _ADDRESS.search(detail or "")
            return address is not None and refusal(address[1], self.networks) is None
        limit = {"too_large": self.max_bytes, "too_many_redirects": self.max_redirects}.get(reason or "")
        number = _NUMBER.fullmatch(detail or "")
        if limit is None or number is None:
            return False
        return int(number[2].replace(",", "")) + bool(number[1]) <= limit


_OF_ROWS = {"robots", "opt_out"}  # servers' refusals determine rows; the rest of the policy does not
NetworkPolicy.runtime_fields = frozenset(NetworkPolicy.model_fields) - _OF_ROWS


class UrlsSource(Source):
    """Lists of URLs to download into img2dataset's shards: Parquet, CSV, TSV, or JSON lines, plain or compressed.

    Needs `pip install '.[img2dataset]'`. Options with img2dataset's names work as there, with two other defaults:
    images keep their size unless you set `image_size` (as with `disable_all_reencoding`), and shards have 1,000 rows.
    `network.attempts` replaces `retries`, and `network.contact` replaces `user_agent_token`. `bbox_col` and
    `save_additional_columns` do not exist: json has all columns of numbers, text, booleans, and times.

    - A failed URL is a row with its reason; it counts toward `max_missing`.
    - With `image_size`, `width` and `height` are those of the resized image, by default a square. Rules can use
      `original_width` and `original_height`.
    - Accepted formats: AVIF, BMP, GIF, JPEG, PNG, TIFF, WebP.
    - Several runs may share a `store` at once. An image in it is not downloaded again.
    """

    example: ClassVar[Any] = {
        "name": "web",
        "format": "urls",
        "path": "list.parquet",
        "network": {"contact": "you@example.org"},
        "image_size": 256,
    }
    gives = (
        Column("failures", "reason", "string", "Reason code, such as `dns`, `timeout`, `http_404`, `robots`."),
        Column("failures", "detail", "string", "Error message."),
        Column("failures", "attempts", "int32", "Number of attempts, in all rounds."),
        Column("failures", "attempted", "timestamp[ms, tz=UTC]", "End of the last attempt."),
        Column("failures", "may_pass", "bool", "Whether another attempt may succeed."),
    )

    model_config = ConfigDict(serialize_by_alias=True)
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"thread_count"})
    neutral_fields = frozenset({"thread_count", "store", "from_run"})

    path: UserPaths = Field((), exclude_if=not_, examples=["list/*.parquet"])
    """The lists. Give `path` or `from`."""
    from_run: UserPath | None = Field(None, exclude_if=not_, examples=["text-run"], alias="from", min_length=1)
    """A finished run over text lists: its kept rows are downloaded, with their columns and weights."""
    columns: Columns = Field(Columns(), examples=[{"caption": "TEXT", "url": "URL"}])
    """Columns of the list, if curate does not find them by name."""
    column_names: tuple[_Text, ...] | None = Field(None, exclude_if=not_, examples=[["url", "caption"]], min_length=2)
    """Columns of CSV or TSV files without a header line, in order. null: the first line names them."""
    network: NetworkPolicy = Field(examples=[{"contact": "you@example.org"}])
    """How servers are asked."""
    store: UserPath | None = Field(None, examples=["s3://bucket/images"])
    """Folder for downloads, shared between runs. null: `pool/` in the run folder."""
    number_sample_per_shard: int = Field(1000, examples=[10000], ge=2, le=100_000)
    """URLs per shard (img2dataset: 10,000)."""
    thread_count: int = Field(256, examples=[64], ge=1)
    """Concurrent downloads per shard."""
    timeout: float = Field(10.0, examples=[20], gt=0)
    """Seconds to wait for a connection, or for the server's next bytes."""
    extract_exif: bool = Field(True, examples=[False])
    """Write each image's EXIF data to its json."""
    compute_hash: Hash | None = Field("sha256", examples=["md5"])
    """Hash of the downloaded bytes to write to the json. null: none."""
    verify_hash: tuple[_Text, Hash] | None = Field(None, examples=[["sha256", "sha256"]])
    """Column with a hash, and its kind, such as `[sha256, sha256]`; another image is refused. null: none."""
    disallowed_header_directives: tuple[str, ...] | None = Field(None, examples=[["noai", "noimageai"]])
    """X-Robots-Tag directives that refuse an image. null: img2dataset's directives and `none`."""
    image_size: int | None = Field(None, examples=[256], ge=1)
    """Resize to this many pixels per side. null: keep the original image."""
    resize_mode: _Mode = Field("border", examples=["keep_ratio"])
    """`border` pads, `keep_ratio` fits the shorter side, `keep_ratio_largest` the longer; `center_crop` crops; `no`
    keeps the size."""
    resize_only_if_bigger: bool = Field(False, examples=[True])
    """Do not enlarge images."""
    upscale_interpolation: _Interpolation = Field("lanczos", examples=["cubic"])
    """Interpolation when enlarging."""
    downscale_interpolation: _Interpolation = Field("area", examples=["lanczos"])
    """Interpolation when reducing."""
    encode_quality: int = Field(95, examples=[90], ge=0, le=100)
    """Quality of jpg and webp, 0 to 100; compression of png, 0 to 9."""
    encode_format: Literal["jpg", "png", "webp"] = Field("jpg", examples=["webp"])
    """Format of resized images."""
    skip_reencode: bool = Field(False, examples=[True])
    """Keep the bytes of images that are not resized."""
    min_image_size: int = Field(0, examples=[100], ge=0)
    """Refuse images whose shorter side has fewer pixels."""
    max_image_area: float | None = Field(None, examples=[20_000_000], gt=0)
    """Refuse images with more pixels. null: no limit."""
    max_aspect_ratio: float | None = Field(None, examples=[3], gt=0)
    """Refuse images with a larger ratio of longer to shorter side. null: no limit."""

    @property
    def input_run(self) -> str | None:
        return self.from_run

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if bool(self.path) == bool(self.from_run):
            raise ValueError("give either path, of lists of URLs, or from, the folder of a finished run over some")
        if self.from_run and self.columns != Columns():
            raise ValueError("columns: the run named by `from` says which column is which; accepted: columns with path")
        if twice := find_twice(self.column_names or ()):
            raise ValueError(f"column_names: two columns are named {twice!r}")
        fields = type(self).model_fields
        named = [name for name in RESIZING if getattr(self, name) != fields[name].default]
        if named and self.image_size is None:
            raise ValueError(f"{named[0]}: not used without image_size; add it, or a rule such as min_side >= 100")
        if self.verify_hash and self.verify_hash[1] != self.compute_hash:
            problem = f"{self.verify_hash[1]} is verified, but compute_hash is {self.compute_hash}"
            raise ValueError(f"verify_hash: {problem}; accepted: the same for both")
        if self.encode_format == "png" and self.encode_quality > 9:
            raise ValueError(f"encode_quality: {self.encode_quality}; for png it is compression; accepted: 0 to 9")
        return self

    _run: str = PrivateAttr("")  # the folder of the run that reads it
    _reuse: str | None = PrivateAttr(None)  # a run to reuse, which may have its shards
    _is_alone: bool = PrivateAttr(True)
    _stores: dict[str, RunStore] = PrivateAttr(default_factory=dict)  # shared by copies

    def placed_in(self, run: str, reuse: str | None = None, is_alone: bool = True) -> Self:
        """Return the source for a run: its shards are in the run's folder, or in the folder of the run to reuse."""
        assigned = self.model_copy()
        assigned._run, assigned._reuse, assigned._is_alone = run, reuse, is_alone
        return assigned

    @property
    def run_store(self) -> RunStore:
        """The folder of the run that reads it: a single object, because a store gets one log file for each."""
        return self._stores.setdefault(self._run, RunStore(self._run))

    def place(self, name: str) -> tuple[RunStore, str]:
        """Return the store that contains a shard's file, and the path in it."""
        return (RunStore(self.store), name) if self.store else (RunStore(self._run), f"{POOL}/{name}")

    def places(self) -> list[str]:
        """Return the folders that may contain shards; the run to reuse is last."""
        return [self.store] if self.store else [f"{run}/{POOL}" for run in (self._run, self._reuse) if run]

    def adopt(self, stem: str) -> bool:
        """Copy a shard from the run to reuse if its manifest lists it; return whether it did."""
        if self.store or not self._reuse:
            return False
        old, store = RunStore(self._reuse), RunStore(self._run)
        names = [f"{POOL}/{stem}{ending}" for ending in ENDINGS]
        digests = {name: digest for name in names if old.exists(name) and (digest := recorded_digest(old, name))}
        if len(digests) < len(names):
            return False
        for name, digest in digests.items():
            store.adopt(old, name, name, digest)
        return True

    def row_fields(self) -> dict[str, Any]:
        """Return the network settings that determine the rows: only what servers may refuse."""
        return super().row_fields() | {"network": self.network.model_dump(include=_OF_ROWS)}
