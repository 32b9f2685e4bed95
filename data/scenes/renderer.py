"""Scene in, light and geometry out: path tracing and exact camera-z depth with Mitsuba 3.

The variant is scalar_rgb: it needs no system library and its bytes depend neither on the order of scenes nor on
threads. Pieces of one material become one mesh with colours on its vertices, because building a scene costs a
millisecond per plugin and more per triangle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.core.elementary import power, sin
from data.core.params import UserError
from data.scenes.meshes import joined
from data.scenes.scene import Scene, Sky

VARIANT = "scalar_rgb"
GUIDE_SAMPLES = 4  # per pixel, for albedo, normal and depth that steer the denoiser
BOUNCES = 7


@dataclass(frozen=True)
class Render:
    """What the camera saw: H x W linear radiance, exact depth, and noise-free guides for the denoiser."""

    radiance: np.ndarray  # (H, W, 3)
    depth: np.ndarray  # (H, W) camera z of the first surface at pixel centres, metres, 0 = sky
    albedo: np.ndarray  # (H, W, 3)
    normal: np.ndarray  # (H, W, 3)
    guide_depth: np.ndarray  # (H, W) averaged over the pixel


def load_mitsuba():
    """The Mitsuba module, one thread, variant set; a UserError that names the extra when it is not installed."""
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise UserError(f"Mitsuba cannot be imported ({error}); rendering needs it: pip install mitsuba") from error
    mitsuba.set_variant(VARIANT)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    drjit.set_thread_count(1)
    return mitsuba


def render(scene: Scene, size: int, samples: int, seed: int) -> Render:
    """Path-trace a scene at size x size pixels; the result depends on nothing but the arguments."""
    mi = load_mitsuba()
    world = mi.load_dict({"type": "scene", **_emitters(mi, scene.sky), **_shapes(mi, scene)})
    pixels = max(4, round(samples * scene.effort))
    radiance = _image(
        mi, world, {"type": "path", "max_depth": BOUNCES, "rr_depth": 4}, _sensor(mi, scene, size, pixels), seed
    )[..., :3]
    guides = _image(
        mi,
        world,
        {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal,point:position"},
        _sensor(mi, scene, size, GUIDE_SAMPLES),
        seed,
    )
    centres = _image(
        mi, world, {"type": "aov", "aovs": "point:position,shape:shape_index"}, _sensor(mi, scene, size, 0), seed
    )
    hit = centres[..., 3] > 0
    return Render(
        radiance=radiance,
        depth=np.where(hit, scene.camera.depth(centres[..., :3]), 0.0),
        albedo=guides[..., 0:3],
        normal=guides[..., 3:6],
        guide_depth=np.where(hit, scene.camera.depth(guides[..., 6:9]), 1e3),
    )


def _image(mi, world, integrator: dict, sensor, seed: int) -> np.ndarray:
    image = mi.load_dict(integrator).render(world, sensor=sensor, seed=seed % 2**31)
    return np.array(image, dtype=np.float64)


def _sensor(mi, scene: Scene, size: int, samples: int):
    """A pinhole sensor; samples = 0 means exactly one ray through each pixel's centre."""
    camera = scene.camera
    sampler: dict = {"type": "multijitter", "sample_count": samples}
    if samples == 0:
        sampler = {"type": "stratified", "sample_count": 1, "jitter": False}
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": camera.field_of_view,
            "near_clip": 0.01,
            "to_world": mi.ScalarTransform4f().look_at(
                origin=list(camera.position), target=list(camera.target), up=[0, 0, 1]
            ),
            "film": {
                "type": "hdrfilm",
                "width": size,
                "height": size,
                "pixel_format": "rgb",
                "component_format": "float32",
                "rfilter": {"type": "box"},
            },
            "sampler": sampler,
        }
    )


def _emitters(mi, sky: Sky) -> dict:
    rows = 32
    height = sin(np.linspace(np.pi / 2, -np.pi / 2, rows))[:, None]  # 1 overhead, 0 horizon, -1 below
    above = sky.horizon + (sky.top - sky.horizon) * power(np.clip(height, 0, 1), 0.6)
    dome = np.where(height > -0.02, above, sky.below)
    picture = np.repeat(dome[:, None].astype(np.float32), 8, axis=1)
    emitters: dict = {
        "sky": {
            "type": "envmap",
            "bitmap": mi.Bitmap(np.ascontiguousarray(picture)),
            "to_world": mi.ScalarTransform4f().rotate([1, 0, 0], 90),
        }
    }
    if sky.sun is not None:
        emitters["sun"] = {
            "type": "directional",
            "direction": [-v for v in sky.sun_from],
            "irradiance": {"type": "rgb", "value": [float(v) for v in sky.sun]},
        }
    return emitters


def _shapes(mi, scene: Scene) -> dict:
    """One mesh for each material that occurs (for each lamp its own), colours as a vertex attribute."""
    groups: dict[str, list] = {}
    for i, piece in enumerate(scene.pieces):
        name = f"lamp{i}" if piece.material == "lamp" else piece.material
        groups.setdefault(name, []).append(piece)
    shapes = {}
    for name, pieces in groups.items():
        mesh = joined([piece.mesh for piece in pieces])
        colours = np.concatenate([np.broadcast_to(p.colour, p.mesh.vertices.shape) for p in pieces])
        props = mi.Properties()
        props["bsdf"] = mi.load_dict(_bsdf(name))
        if name.startswith("lamp"):
            radiance = {"type": "rgb", "value": [float(v) for v in pieces[0].colour]}
            props["emitter"] = mi.load_dict({"type": "area", "radiance": radiance})
        shape = mi.Mesh(name, len(mesh.vertices), len(mesh.faces), has_vertex_normals=True, props=props)
        shape.add_attribute("vertex_color", 3, np.ascontiguousarray(colours, dtype=np.float32).ravel())
        params = mi.traverse(shape)
        params["vertex_positions"] = np.ascontiguousarray(mesh.vertices, dtype=np.float32).ravel()
        params["vertex_normals"] = np.ascontiguousarray(mesh.normals, dtype=np.float32).ravel()
        params["faces"] = np.ascontiguousarray(mesh.faces, dtype=np.uint32).ravel()
        params.update()
        shapes[name] = shape
    return shapes


def _bsdf(material: str) -> dict:
    colour = {"type": "mesh_attribute", "name": "vertex_color"}
    if material == "gloss":
        return {"type": "principled", "base_color": colour, "roughness": 0.2, "specular": 0.6}
    if material == "metal":
        return {"type": "principled", "base_color": colour, "roughness": 0.35, "metallic": 1.0}
    if material == "mirror":
        return {"type": "twosided", "nested": {"type": "conductor", "specular_reflectance": colour}}
    if material == "glass":
        return {"type": "dielectric", "int_ior": 1.45, "specular_transmittance": colour}
    if material.startswith("lamp"):
        return {"type": "diffuse", "reflectance": 0.0}
    return {"type": "twosided", "nested": {"type": "diffuse", "reflectance": colour}}
