"""Volumes that the user adds to the pods."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rerank_operator.api.schema import (
    ApiModel,
    EmptyIsUnset,
    Matches,
    ObjectName,
    Quantity,
    Rules,
    cel_list,
    dns_name,
    rule,
    rules,
)

# Of the pods' own, and some for the volumes to come.
RESERVED_VOLUMES = ("cache", "config", "home", "shm")
RESERVED_PATHS = ("/dev/shm/", "/opt/server/", "/var/cache/rerank/")


class ConfigMapVolume(ObjectName):
    """Files from a ConfigMap."""

    optional: Annotated[
        bool | None, Field(description="Start without it, if it is not there. Unset: wait for it.")
    ] = None


class SecretVolume(ApiModel):
    """Files from a Secret."""

    secret_name: Annotated[
        str, Field(max_length=253, description="Its name."), dns_name("secretName")
    ]
    optional: Annotated[
        bool | None, Field(description="Start without it, if it is not there. Unset: wait for it.")
    ] = None


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim."""

    claim_name: Annotated[
        str, Field(max_length=253, description="Its name."), dns_name("claimName")
    ]
    read_only: Annotated[
        bool | None, Field(description="Attach it for reading only."), EmptyIsUnset
    ] = None


class EmptyVolume(ApiModel):
    """A directory that is empty when the pod starts, and goes with it."""

    medium: Annotated[
        Literal["Memory"] | None, Field(description="Memory, or unset for the node's disk.")
    ] = None
    size_limit: Annotated[Quantity | None, Field(description="Most that it may hold.")] = None


_SOURCES = ("configMap", "secret", "persistentVolumeClaim", "emptyDir")


class Volume(ApiModel):
    """One volume of the pods. Those of the node itself (hostPath) are not offered."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!(self.name in {cel_list(RESERVED_VOLUMES)})",
                "podTemplate.volumes holds a name that the operator uses: choose another than "
                + ", ".join(RESERVED_VOLUMES),
                "'podTemplate.volumes holds ' + self.name + "
                "', which the operator uses: choose another name'",
            ),
            rule(
                f"[{', '.join(f'has(self.{source})' for source in _SOURCES)}]"
                ".filter(there, there).size() == 1",
                f"a volume holds no source, or several: write exactly one of {', '.join(_SOURCES)}",
            ),
        )
    )

    name: Annotated[
        str,
        Field(max_length=63, description="Its name, for volumeMounts."),
        Matches(
            "name",
            r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "write lower case letters, digits and '-', with a letter or digit at both ends",
        ),
    ]
    config_map: Annotated[
        ConfigMapVolume | None, Field(description="Files from a ConfigMap, such as certificates.")
    ] = None
    secret: Annotated[SecretVolume | None, Field(description="Files from a Secret.")] = None
    persistent_volume_claim: Annotated[
        ClaimVolume | None, Field(description="An existing claim, such as one that holds models.")
    ] = None
    empty_dir: Annotated[EmptyVolume | None, Field(description="An empty directory.")] = None


class VolumeMount(ApiModel):
    """Where a volume is found in the server container."""

    name: Annotated[str, Field(min_length=1, max_length=63, description="Name of the volume.")]
    mount_path: Annotated[
        str,
        Field(max_length=512, description="Directory in the container."),
        Rules(
            rule(
                f"{cel_list(RESERVED_PATHS)}.all(path, !(self + '/').startsWith(path) && "
                "!path.startsWith(self + '/'))",
                "podTemplate.volumeMounts covers a directory that the server uses: choose a "
                f"path apart from {', '.join(RESERVED_PATHS)}",
                "'podTemplate.volumeMounts covers ' + self + "
                "', which the server uses: choose another path'",
            )
        ),
        Matches(
            "mountPath",
            r"^(/([A-Za-z0-9_-]|\.[A-Za-z0-9_-])[A-Za-z0-9._-]*)+$",
            "write an absolute path below /, without ':' and '..'",
        ),
    ]
    sub_path: Annotated[
        str | None,
        Field(max_length=512, description="Only this file or directory of the volume."),
        EmptyIsUnset,
    ] = None
    read_only: Annotated[
        bool | None, Field(description="Let the server only read it."), EmptyIsUnset
    ] = None
