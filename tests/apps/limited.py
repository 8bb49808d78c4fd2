from warmpool import BaseApp


class Limited(BaseApp):
    max_workers = 1
    warm = 0
    version = "1.0"

    def run(self) -> str:
        return "ran"
