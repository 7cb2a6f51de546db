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
    """How to download: which servers to contact, how often, and how much to accept.

    - curate uses only http and https. It connects only to public addresses. It checks the address of each connection,
      including those after redirects.
    - These headers can opt an image out: X-Robots-Tag (with img2dataset's directives or `none`), TDM-Reservation, and
      Content-Usage. curate does not read /.well-known/tdmrep.json, or `Content-Usage` rules in robots.txt.
    """

    example: ClassVar[Any] = {"contact": "you@example.org"}

    contact: _Contact = Field(examples=["you@example.org"])
    """Your email address, or the URL of a page about you. curate sends it to every server."""
    allow_networks: tuple[Annotated[str, AfterValidator(_network)], ...] = Field((), examples=[["10.0.0.0/8"]])
    """Networks that are not public, but that curate may connect to, such as 127.0.0.0/8 for this machine."""
    robots: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """Whether curate respects robots.txt."""
    opt_out: Literal["respect", "ignore"] = Field("respect", examples=["ignore"])
    """Whether curate respects headers that opt an image out of machine learning."""
    max_bytes: int = Field(100_000_000, examples=[20_000_000], gt=0)
    """Maximum size of a download, in bytes."""
    max_seconds: float = Field(60.0, examples=[30], gt=0)
    """Maximum time for a download, in seconds, from the name lookup to the last byte."""
    max_redirects: int = Field(5, examples=[3], ge=0)
    """Maximum number of redirects per download."""
    per_host: int = Field(4, examples=[2], gt=0)
    """Maximum number of connections to one host at the same time, from all workers together."""
    attempts: int = Field(3, examples=[5], ge=1)
    """Maximum number of attempts for a URL. curate tries again after 408, 425, 429, 5xx, DNS errors, and timeouts. Each
    `--retry` allows this many more attempts."""
    pause: float = Field(1.0, examples=[2], gt=0)
    """Seconds before the second attempt. Each further pause is twice as long, unless the server asks for a specific
    pause."""
    max_pause: float = Field(30.0, examples=[60], gt=0)
    """Longest pause, in seconds. If the next pause would be longer, the URL fails."""

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


_OF_ROWS = {"robots", "opt_out"}  # what servers forbid determines the rows; the rest of the policy does not
NetworkPolicy.runtime_fields = frozenset(NetworkPolicy.model_fields) - _OF_ROWS


class UrlsSource(Source):
    """Lists of URLs in Parquet, CSV, TSV, or JSON lines, plain or compressed. curate downloads the images.

    Needs `pip install '.[img2dataset]'`. Options that have the same name as in img2dataset work as they do there, with
    these exceptions:

    - Images keep their size unless you set `image_size`, as with img2dataset's `disable_all_reencoding`.
    - A shard has 1,000 rows by default.
    - `network.attempts` replaces `retries`, and `network.contact` replaces `user_agent_token`.
    - `bbox_col` and `save_additional_columns` do not exist. The json always contains every column of the list that has
      numbers, text, booleans, or times.

    More about downloads:

    - A URL that fails stays in the tables, with the reason. It counts toward `max_missing`.
    - With `image_size`, the columns `width` and `height` describe the resized image, which is a square by default.
      Rules can use the columns `original_width` and `original_height` instead.
    - Accepted image formats: AVIF, BMP, GIF, JPEG, PNG, TIFF, WebP.
    - Several runs may use one `store` at the same time. curate does not download an image that is already in the store.
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
        Column("failures", "attempts", "int32", "Number of attempts, including those of `--retry`."),
        Column("failures", "attempted", "timestamp[ms, tz=UTC]", "Time at which the last attempt ended."),
        Column("failures", "may_pass", "bool", "Whether another attempt could succeed."),
    )

    model_config = ConfigDict(serialize_by_alias=True)
    runtime_fields: ClassVar[frozenset[str]] = frozenset({"thread_count"})
    neutral_fields = frozenset({"thread_count", "store", "from_run"})

    path: UserPaths = Field((), exclude_if=not_, examples=["list/*.parquet"])
    """Files with the lists. Set either `path` or `from`."""
    from_run: UserPath | None = Field(None, exclude_if=not_, examples=["text-run"], alias="from", min_length=1)
    """Folder of a finished run without images. curate downloads the images of its kept rows, and keeps their columns
    and probabilities."""
    columns: Columns = Field(Columns(), examples=[{"caption": "TEXT", "url": "URL"}])
    """Names of the columns with URLs, captions, and so on. Set only those that curate does not recognize."""
    column_names: tuple[_Text, ...] | None = Field(None, exclude_if=not_, examples=[["url", "caption"]], min_length=2)
    """Names of all columns in order, for CSV or TSV files without a header line. null: the first line has the names."""
    network: NetworkPolicy = Field(examples=[{"contact": "you@example.org"}])
    """How to contact servers, and which limits apply."""
    store: UserPath | None = Field(None, examples=["s3://bucket/images"])
    """Folder for downloads, which several runs can share. null: `pool/` in the run folder."""
    number_sample_per_shard: int = Field(1000, examples=[10000], ge=2, le=100_000)
    """URLs per shard (img2dataset's default: 10,000)."""
    thread_count: int = Field(256, examples=[64], ge=1)
    """Number of downloads at the same time, for each shard."""
    timeout: float = Field(10.0, examples=[20], gt=0)
    """Seconds to wait for a connection, and for the next bytes from the server."""
    extract_exif: bool = Field(True, examples=[False])
    """Write each image's EXIF data to its json."""
    compute_hash: Hash | None = Field("sha256", examples=["md5"])
    """Write this hash of the downloaded bytes to the json. null: write none."""
    verify_hash: tuple[_Text, Hash] | None = Field(None, examples=[["sha256", "sha256"]])
    """Column with the expected hash, and the kind of hash, such as `[sha256, sha256]`. curate refuses an image that has
    another hash. null: do not check."""
    disallowed_header_directives: tuple[str, ...] | None = Field(None, examples=[["noai", "noimageai"]])
    """Refuse images with one of these X-Robots-Tag directives. null: img2dataset's default directives, and `none`."""
    image_size: int | None = Field(None, examples=[256], ge=1)
    """Resize images to this many pixels per side; see `resize_mode`. null: keep the original images."""
    resize_mode: _Mode = Field("border", examples=["keep_ratio"])
    """`border`: scale and pad to a square. `center_crop`: scale and crop to a square. `keep_ratio`: scale the shorter
    side to `image_size`. `keep_ratio_largest`: scale the longer side to `image_size`. `no`: keep the size."""
    resize_only_if_bigger: bool = Field(False, examples=[True])
    """Do not enlarge images."""
    upscale_interpolation: _Interpolation = Field("lanczos", examples=["cubic"])
    """Interpolation method for enlarging images."""
    downscale_interpolation: _Interpolation = Field("area", examples=["lanczos"])
    """Interpolation method for shrinking images."""
    encode_quality: int = Field(95, examples=[90], ge=0, le=100)
    """Quality of jpg and webp files (0 to 100), or compression level of png files (0 to 9)."""
    encode_format: Literal["jpg", "png", "webp"] = Field("jpg", examples=["webp"])
    """Format of resized images."""
    skip_reencode: bool = Field(False, examples=[True])
    """If an image is not resized, keep its original bytes."""
    min_image_size: int = Field(0, examples=[100], ge=0)
    """Refuse images whose shorter side has fewer pixels than this."""
    max_image_area: float | None = Field(None, examples=[20_000_000], gt=0)
    """Refuse images with more pixels than this. null: no limit."""
    max_aspect_ratio: float | None = Field(None, examples=[3], gt=0)
    """Refuse images whose longer side, divided by the shorter one, is larger than this. null: no limit."""

    @property
    def input_run(self) -> str | None:
        return self.from_run

    @model_validator(mode="after")
    def _fit_each_other(self) -> Self:
        if bool(self.path) == bool(self.from_run):
            raise ValueError("give either path (lists of URLs) or from (the folder of a finished run over URLs)")
        if self.from_run and self.columns != Columns():
            raise ValueError("columns: the run in `from` already names its columns; accepted: columns with path")
        if twice := find_twice(self.column_names or ()):
            raise ValueError(f"column_names: two columns are named {twice!r}")
        fields = type(self).model_fields
        named = [name for name in RESIZING if getattr(self, name) != fields[name].default]
        if named and self.image_size is None:
            raise ValueError(f"{named[0]}: not used without image_size; add it, or a rule such as min_side >= 100")
        if self.verify_hash and self.verify_hash[1] != self.compute_hash:
            problem = f"the recipe verifies {self.verify_hash[1]}, but compute_hash is {self.compute_hash}"
            raise ValueError(f"verify_hash: {problem}; accepted: the same kind of hash for both keys")
        if self.encode_format == "png" and self.encode_quality > 9:
            raise ValueError(f"encode_quality: {self.encode_quality}; for png, accepted: a compression of 0 to 9")
        return self

    _run: str = PrivateAttr("")  # folder of the run that reads this source
    _reuse: str | None = PrivateAttr(None)  # a run to reuse, which may have shards of this source
    _is_alone: bool = PrivateAttr(True)
    _stores: dict[str, RunStore] = PrivateAttr(default_factory=dict)  # copies share them

    def placed_in(self, run: str, reuse: str | None = None, is_alone: bool = True) -> Self:
        """Return the source for a run. Its shards are in the run's folder, or in the folder of the run to reuse."""
        assigned = self.model_copy()
        assigned._run, assigned._reuse, assigned._is_alone = run, reuse, is_alone
        return assigned

    @property
    def run_store(self) -> RunStore:
        """The folder of the run that reads this source.

        It is a single object, because a store gets a log file for each.
        """
        return self._stores.setdefault(self._run, RunStore(self._run))

    def place(self, name: str) -> tuple[RunStore, str]:
        """Return the store that has a file of a shard, and the path in it."""
        return (RunStore(self.store), name) if self.store else (RunStore(self._run), f"{POOL}/{name}")

    def places(self) -> list[str]:
        """Return the folders that may have shards; the run to reuse is last."""
        return [self.store] if self.store else [f"{run}/{POOL}" for run in (self._run, self._reuse) if run]

    def adopt(self, stem: str) -> bool:
        """Copy a shard from the run to reuse if its manifest lists it. Return whether it was copied."""
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
        """Return the network settings that determine the rows: only those about what servers forbid."""
        return super().row_fields() | {"network": self.network.model_dump(include=_OF_ROWS)}
