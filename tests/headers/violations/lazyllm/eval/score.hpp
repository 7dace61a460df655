// Nothing wrong here.
#pragma once
