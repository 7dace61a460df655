// violates: lazyllm/other/unknown_folder.hpp: folder other has no layer
#pragma once
