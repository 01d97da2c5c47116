import dataclasses
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sdelab.data.files import AbstractFiles
from sdelab.data.images.fit import AbstractFit
from sdelab.data.samples import AbstractSamples

MODES = {1: "L", 3: "RGB"}
_EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles(AbstractSamples):
    """Images decoded when they are asked for, `(n, size, size, channels)` uint8.

    Fields: `files`; `names` of those that are images, in their order; `fit`, the rule that brings them to one size;
    `channels`, 1 (luminance, ITU-R 601-2) or 3 (RGB; a transparency is left off).
    """

    files: AbstractFiles
    names: tuple[str, ...]
    fit: AbstractFit
    channels: int = 3

    def __post_init__(self):
        if self.channels not in MODES:
            raise ValueError(f"channels = {self.channels} is not accepted; accepted: 1 or 3.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names), self.fit.size, self.fit.size, self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def read(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[...] = self._decode(self.names[row])
        return images

    def decoded(self, threads: int = 4) -> np.ndarray:
        """All of them, in memory. A terminal shows how far it is."""
        images = np.empty(self.shape, np.uint8)
        chunks = [np.arange(start, min(start + 256, len(self))) for start in range(0, len(self), 256)]
        with ThreadPoolExecutor(threads) as pool:
            done = zip(chunks, pool.map(self.read, chunks), strict=True)
            for rows, part in tqdm(done, "decoding", len(chunks), unit="x256", disable=None, leave=False):
                images[rows] = part
        return images

    def digest(self) -> str:
        digest = hashlib.sha256(f"{self.fit!r} {self.channels}".encode())
        for name in self.names:
            digest.update(f"{name} {self.files.checksum(name)}\n".encode())
        return digest.hexdigest()

    def _decode(self, name: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self.files.read(name))) as image:
                if image.mode not in _EIGHT_BIT:
                    raise ValueError(f"it has pixels of mode {image.mode}; accepted: 8 bits a channel.")
                fitted = self.fit(image.convert(MODES[self.channels]))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.files.path}: {name} cannot be read: {error}") from error
        return np.asarray(fitted).reshape(self.shape[1:])
