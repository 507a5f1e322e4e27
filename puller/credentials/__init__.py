"""Who we are to a registry: where credentials are looked up, and where ``login`` keeps them."""

from moorage.puller.credentials.keychain import FixedKeychain, Keychain, Keys
from moorage.puller.credentials.model import Credentials

__all__ = ["Credentials", "FixedKeychain", "Keychain", "Keys"]
