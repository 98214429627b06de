"""The gallery on disk: a table that is mapped into memory, and images added and removed in place.

`gallery.json` counts the rows of three files to which rows are only ever added, and says which of
them were removed; what lies behind the rows that it counts is not there. So a change counts when
this one file is replaced: readers that have the folder open keep what they have, and whatever kills
a writer leaves the gallery as it was.
"""

from index.gallery.changes import save_gallery
from index.gallery.manifest import MANIFEST
from index.gallery.reading import load_gallery, open_gallery
from index.gallery.table import Gallery, check_space

__all__ = ["MANIFEST", "Gallery", "check_space", "load_gallery", "open_gallery", "save_gallery"]
