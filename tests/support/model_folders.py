"""ComfyUI's model folders as they were, after what shows it folders of its own."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def same_model_folders() -> Iterator[None]:
    import folder_paths

    before = {kind: list(paths) for kind, (paths, _) in folder_paths.folder_names_and_paths.items()}
    yield
    for kind, paths in before.items():
        folder_paths.folder_names_and_paths[kind][0][:] = paths
    folder_paths.filename_list_cache.clear()  # it names those folders too, and ComfyUI asks each of them for its time
