"""The few calls that make up nearly all requests, composed and read here; everything else is boto3's.

boto3 spends four fifths of a call's processor time on what we do not need of it: rules for endpoints, a tree of event
handlers, serialisers and parsers driven by a description of the service. A small push is fifty calls.

Law: what goes over the wire is as boto3 would send it. Its own signer signs with its own credentials, and its own
session sends, with its time limits, certificates and proxies, so failures are its exceptions too. What is not plainly
understood, such as a redirect to another region, is asked again through boto3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.response import StreamingBody
from urllib3.exceptions import HTTPError

__all__ = ["Direct"]

_METHODS: Final = {
    "get_object": "GET",
    "head_object": "HEAD",
    "put_object": "PUT",
    "delete_object": "DELETE",
    "upload_part": "PUT",
    "list_objects_v2": "GET",
}
_HEADERS: Final = {
    "Range": "Range",
    "IfMatch": "If-Match",
    "IfNoneMatch": "If-None-Match",
    "ContentType": "Content-Type",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
_QUERY: Final = {
    "UploadId": "uploadId",
    "PartNumber": "partNumber",
    "Prefix": "prefix",
    "Delimiter": "delimiter",
    "StartAfter": "start-after",
    "ContinuationToken": "continuation-token",
}
_KNOWN: Final = frozenset({*_HEADERS, *_QUERY, "Bucket", "Key", "Body", "Metadata"})
_META: Final = "x-amz-meta-"
_ELSEWHERE: Final = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})


class Direct:
    """A client of boto3 whose frequent calls go without the detour. ``client``: made for ``bucket``."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._credentials = client._get_credentials()
        self._send: Callable[[Any], Any] = client._endpoint.http_session.send
        self._context = {"client_config": client.meta.config}
        self._base = self._bucket_url = ""

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """The answer, as boto3 gives it.

        Raises:
            ClientError, BotoCoreError: as boto3.
        """
        if operation in _METHODS and self._credentials is not None and arguments.keys() <= _KNOWN:
            answer = self._send(self._compose(operation, arguments))
            if 200 <= answer.status_code < 300:
                try:
                    return _understand(operation, answer)
                except (ElementTree.ParseError, KeyError, ValueError) as exc:
                    raise HTTPClientError(error=exc) from exc
            if not _is_elsewhere(refusal := _refusal(operation, answer)):
                raise refusal
        return getattr(self._client, operation)(Bucket=self._bucket, **arguments)

    def _compose(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        headers = {_HEADERS[name]: str(value) for name, value in arguments.items() if name in _HEADERS}
        headers |= {_META + name: value for name, value in arguments.get("Metadata", {}).items()}
        query = {_QUERY[name]: str(value) for name, value in arguments.items() if name in _QUERY}
        if operation == "list_objects_v2":
            query["list-type"] = "2"
        url = self._url_of(arguments.get("Key", ""))
        if query:
            url += f"?{urlencode(sorted(query.items()), quote_via=quote, safe='-_.~')}"
        request = AWSRequest(
            _METHODS[operation], url, headers, arguments.get("Body"), stream_output=operation == "get_object"
        )
        request.context.update(self._context)
        frozen = self._credentials.get_frozen_credentials()
        S3SigV4Auth(frozen, "s3", self._client.meta.region_name).add_auth(request)
        return request.prepare()

    def _url_of(self, key: str) -> str:
        if not self._base:
            # boto3 knows whether the bucket stands in the host or in the path, and of which host.
            url = self._client.generate_presigned_url("list_objects_v2", Params={"Bucket": self._bucket})
            self._base = urlsplit(url)._replace(query="").geturl().rstrip("/")
            self._bucket_url = self._base if urlsplit(self._base).path else f"{self._base}/"
        return f"{self._base}/{quote(key, safe='/-_.~')}" if key else self._bucket_url


def _understand(operation: str, answer: Any) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    told: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": answer.status_code, "HTTPHeaders": headers}}
    if operation == "list_objects_v2":
        return told | _listed(answer.content)
    told["ETag"] = headers.get("etag", "")
    told["ServerSideEncryption"] = headers.get("x-amz-server-side-encryption", "")
    told["SSEKMSKeyId"] = headers.get("x-amz-server-side-encryption-aws-kms-key-id", "")
    if operation in ("get_object", "head_object"):
        told["ContentLength"] = int(headers["content-length"])
        told["LastModified"] = parsedate_to_datetime(headers["last-modified"])
        told["ContentRange"] = headers.get("content-range", "")
        told["Metadata"] = {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)}
    if operation == "get_object":
        told["Body"] = StreamingBody(answer.raw, headers["content-length"])
    return told


def _listed(content: bytes) -> dict[str, Any]:
    root = ElementTree.fromstring(content)  # noqa: S314  # as boto3 does: of the server that holds all that we have
    space = root.tag[: root.tag.find("}") + 1]  # not every server declares one
    objects = [
        {
            "Key": one.findtext(f"{space}Key", ""),
            "Size": int(one.findtext(f"{space}Size", "")),
            "ETag": one.findtext(f"{space}ETag", ""),
            "LastModified": datetime.fromisoformat(one.findtext(f"{space}LastModified", "")),
        }
        for one in root.iterfind(f"{space}Contents")
    ]
    prefixes = [{"Prefix": one.findtext(f"{space}Prefix", "")} for one in root.iterfind(f"{space}CommonPrefixes")]
    return {
        "Contents": objects,
        "CommonPrefixes": prefixes,
        "IsTruncated": root.findtext(f"{space}IsTruncated") == "true",
        "NextContinuationToken": root.findtext(f"{space}NextContinuationToken", ""),
    }


def _refusal(operation: str, answer: Any) -> ClientError:
    try:
        root = ElementTree.fromstring(answer.content)  # noqa: S314  # see above
        code = root.findtext("{*}Code") or root.findtext("Code")
    except (ElementTree.ParseError, HTTPError):
        code = None  # an answer to HEAD has no body, one of a proxy is no XML, a broken one has no end
    told = {
        "Error": {"Code": code or str(answer.status_code)},
        "ResponseMetadata": {"HTTPStatusCode": answer.status_code},
    }
    return ClientError(told, operation)


def _is_elsewhere(refusal: ClientError) -> bool:
    status = refusal.response["ResponseMetadata"]["HTTPStatusCode"]
    return 300 <= status < 400 or refusal.response["Error"]["Code"] in _ELSEWHERE
