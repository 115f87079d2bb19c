"""Sends a batch through syncgate with requests. Setup: pip install -r requirements.txt"""

import os
import sys

import requests

URL = os.environ.get("SYNCGATE_URL", "https://127.0.0.1:8443")
BATCH = {"form": "setCustomer", "data": [{"fkey": "C-1001", "name": "Example Ltd"}]}


class Gateway:
    def __init__(self):
        self.session = requests.Session()  # Keeps the connection for the next call.
        self.session.trust_env = False  # Else a .netrc entry would replace the token.
        self.session.verify = os.environ.get("SYNCGATE_CA", True)
        self.token = None

    def log_in(self):
        answer = self.session.post(
            URL + "/api/getToken",
            json={
                "username": os.environ.get("SYNCGATE_USER"),
                "password": os.environ.get("SYNCGATE_PASSWORD"),
            },
            timeout=30,
        )
        if answer.status_code != 200:
            raise RuntimeError(f"log-in failed: {answer.text}")
        self.token = answer.json()["token"]["accesstoken"]

    def send(self, batch):
        headers = {"Authorization": "Bearer " + self.token}
        return self.session.post(URL + "/api/SyncData", json=batch, headers=headers, timeout=120)

    def sync(self, batch):
        if self.token is None:
            self.log_in()
        answer = self.send(batch)
        if answer.status_code == 401:
            self.log_in()  # The token has expired or was revoked: get a new one, try once more.
            answer = self.send(batch)
        if not 200 <= answer.status_code < 300:
            raise RuntimeError(f"call failed with status {answer.status_code}: {answer.text}")
        return answer.text


def main():
    gateway = Gateway()
    for _ in range(int(os.environ.get("SYNCGATE_CALLS", "1"))):
        print(gateway.sync(BATCH))


if __name__ == "__main__":
    try:
        main()
    except (requests.RequestException, RuntimeError) as error:
        sys.exit(str(error))
